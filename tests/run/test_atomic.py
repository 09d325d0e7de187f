import os

import pytest

from gald.run.atomic import atomic_file, new_folder


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


def test_a_folder_is_replaced_when_the_new_one_is_complete(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(ValueError, match="already holds something"), new_folder(folder):
        pass
    with new_folder(folder, replaces=True) as whole:
        (whole / "new").touch()
        assert os.listdir(folder) == ["old"]
    assert os.listdir(folder) == ["new"] and os.listdir(tmp_path) == ["report"]
    with pytest.raises(OSError, match="full"), new_folder(folder, replaces=True) as whole:
        raise OSError("full")
    replace = type(folder).replace

    def refuse_the_new(path, target):
        if path.name == "report" and path.parent != tmp_path and target == folder:
            raise OSError("no room")
        return replace(path, target)

    monkeypatch.setattr(type(folder), "replace", refuse_the_new)
    with pytest.raises(OSError, match="no room"), new_folder(folder, replaces=True) as whole:
        pass
    assert os.listdir(folder) == ["new"] and os.listdir(tmp_path) == ["report"]
