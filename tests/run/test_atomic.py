import os

import pytest

from gald.run.atomic import atomic_file


def test_file_gets_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_file(path) as partial:
        partial.write_text("complete")
        assert not path.exists()
    assert path.read_text() == "complete" and os.listdir(path.parent) == ["file.txt"]


def test_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), atomic_file(path) as partial:
        partial.write_text("incompl")
        raise OSError("full")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]
