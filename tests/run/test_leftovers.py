import os
import subprocess
import sys

import pytest

from gald.run.atomic import atomic_file, new_folder
from gald.run.leftovers import (
    clean_leftovers,
    clean_partial_outputs,
    locked,
    partial_output,
)


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_only_leftovers_of_dead_processes_are_removed(tmp_path, dead):
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    kept = [f"results.json.{living.pid}.part", "notes.part", "a.b.part", f"x.{dead}.partial"]
    for name in [*kept, f"results.json.{dead}.part"]:
        (tmp_path / name).write_text("half")
    (tmp_path / f".net.{dead}.part" / "net").mkdir(parents=True)
    clean_leftovers(tmp_path)
    assert names(tmp_path) == sorted(kept)
    living.communicate(b"\n")
    clean_leftovers(tmp_path)
    assert names(tmp_path) == sorted(kept[1:])


def test_below_a_folder_of_the_user_no_file_of_other_programs_is_removed(tmp_path, dead):
    own = tmp_path / "overlay" / f"clip.{dead}.gald-part.mp4"
    foreign = [tmp_path / "backup.7z.001.part", tmp_path / "deep" / f"clip.{dead}.part.mp4"]
    written = partial_output(tmp_path / "masks" / "a.png")
    for path in (own, written, *foreign):
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    clean_partial_outputs(tmp_path)
    assert not own.exists() and written.exists() and all(path.exists() for path in foreign)


def test_a_file_that_another_machine_writes_is_kept(tmp_path, dead):
    partial = tmp_path / f"results.json.{dead}.part"  # a number of a process there
    partial.write_text("half")
    with locked(partial):
        clean_leftovers(tmp_path)
        assert partial.exists()
    clean_leftovers(tmp_path)
    assert not partial.exists()


def test_the_number_of_a_dead_process_may_be_given_to_another(tmp_path):
    partial = tmp_path / f"results.json.{os.getpid()}.part"
    partial.write_text("half")
    os.utime(partial, (10**9, 10**9))  # before this process began, as in a new container
    clean_leftovers(tmp_path)
    assert not partial.exists()


def test_the_next_write_of_a_file_removes_its_leftovers_only(tmp_path, dead):
    for name in ("a.txt", "b.txt"):
        (tmp_path / f"{name}.{dead}.part").write_text("half")
    (tmp_path / f".net.{dead}.part").mkdir()
    with atomic_file(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
    with new_folder(tmp_path / "net") as folder:
        (folder / "file").touch()
    assert names(tmp_path) == ["a.txt", f"b.txt.{dead}.part", "net"]


def test_files_and_names_are_flushed_before_and_after_the_renaming(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace

    def flush(descriptor):
        order.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def rename(source, target):
        order.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    with atomic_file(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
    assert order == [f"a.txt.{os.getpid()}.part", "renamed", tmp_path.name]


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="full") as error, atomic_file(tmp_path / "a.txt"):
        raise OSError(28, "full")
    assert error.value.filename == str(tmp_path / "a.txt")
