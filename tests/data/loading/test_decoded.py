"""Whenever a build stops, the folder of decoded samples is complete and valid or does not exist."""

import errno
import json
import multiprocessing
import os
import pickle
import re
import signal
import time
from collections import namedtuple

import numpy as np
import pytest

from gald.data.dataset import BaseDataset, RawSample
from gald.data.labels import label_lut
from gald.data.loading import blocks as module
from gald.data.loading.blocks import open_blocks
from gald.data.loading.decoded import build, decode, estimate
from gald.data.reading.sample_error import SampleError

COUNT = 6
TABLE = label_lut({0: 1, 1: 0, 2: 255})
fork = multiprocessing.get_context("fork")


class Painted(BaseDataset):
    """Random samples of different sizes; each takes `seconds`, and those in `bad` raise."""

    class_names = ("a", "b")
    palette = ((0, 0, 0), (9, 9, 9))

    def __init__(self, bad=(), seconds=0.0, log=os.devnull):
        self.bad = bad
        self.seconds = seconds
        self.log = log

    def __len__(self):
        return COUNT

    def image_name(self, index):
        return f"sample {index}"

    def pixels(self, index):
        time.sleep(self.seconds)
        if index in self.bad:
            raise SampleError(f"sample {index} is broken")
        with open(self.log, "a") as file:
            file.write(f"{index}\n")
        return self.draw(index)

    def draw(self, index):
        rng = np.random.default_rng(index)
        shape = (20 + index, 30 - index)
        image = rng.integers(0, 256, (*shape, 3), np.uint8)
        return RawSample(image, rng.integers(0, 3, shape, np.uint8), TABLE)

    def labels(self, index):
        return self.draw(index)[1:]

    def fingerprint(self):
        return "0123456789abcdef" * 4


def expected():
    return [decode(Painted(), i).pixels.tobytes() for i in range(COUNT)]


def assert_whole(folder):
    shapes, blocks = open_blocks(folder)
    assert [tuple(shape) for shape in shapes] == [(20 + i, 30 - i) for i in range(COUNT)]
    assert [blocks[i].tobytes() for i in range(COUNT)] == expected()
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "pixels.u8"]
    assert not partial(folder).exists()


def partial(folder):
    return folder.with_name(folder.name + ".partial")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "decoded" / "painted-0123456789abcdef"


@pytest.fixture
def stopped(folder):
    """A build that stopped at a broken sample after four valid ones."""
    with pytest.raises(SampleError, match=r"^sample 4 is broken$"):
        build(Painted(bad=[4]), folder)
    return folder


def decoded_by(dataset, folder, tmp_path):
    """Return the sorted indices of the samples that a build decodes."""
    dataset.log = tmp_path / "log"
    dataset.log.touch()
    build(dataset, folder)
    return sorted(int(line) for line in dataset.log.read_text().splitlines())


def test_bytes_are_image_then_mask_of_train_ids(folder):
    build(Painted(), folder)
    assert_whole(folder)
    _, blocks = open_blocks(folder)
    image, labels, lut = Painted().draw(3)
    assert blocks[3].tobytes() == image.tobytes() + lut[labels].tobytes()
    assert not blocks[3].flags.writeable


def test_index_lists_each_sample(folder):
    build(Painted(), folder)
    index = json.loads((folder / "index.json").read_text())
    assert index["format"] == module.FORMAT
    first, second = index["scenes"][:2]
    assert (first["name"], first["offset"], second["offset"]) == ("sample 0", 0, 4 * 20 * 30)
    assert (second["height"], second["width"]) == (21, 29)


def test_an_existing_folder_is_not_built_again(folder, tmp_path):
    build(Painted(), folder)
    assert decoded_by(Painted(), folder, tmp_path) == []


def test_samples_before_a_broken_one_are_kept(stopped, tmp_path):
    assert not stopped.exists()
    assert decoded_by(Painted(), stopped, tmp_path) == [4, 5]
    assert_whole(stopped)


def test_an_unknown_label_raises_the_message_of_the_dataset(folder):
    class Unknown(Painted):
        def draw(self, index):
            image, labels, lut = super().draw(index)
            return RawSample(image, labels + 40, lut)

    with pytest.raises(SampleError, match=r"^sample 0 has label 4[012], which has no train id"):
        build(Unknown(), folder)


class Killer:
    """Wraps functions that change the disk, and kills the process at call number `at`."""

    def __init__(self, at):
        self.at = at
        self.calls = 0

    def __call__(self, function):
        def call(*args):
            self.calls += 1
            if self.calls == self.at:
                if function is module_append:
                    function(args[0], memoryview(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        return call


module_append = module._append


def build_and_die(folder, at):
    killer = Killer(at)
    module._append = killer(module_append)
    for name in ("fsync", "rename", "truncate"):
        setattr(os, name, killer(getattr(os, name)))
    build(Painted(), folder)


def run(target, *args):
    process = fork.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.integration
def test_a_kill_at_any_write_leaves_no_folder_that_seems_complete(tmp_path):
    steps = 2 + 2 * COUNT + 5  # truncate, append, then fsync and rename
    for at in range(1, steps + 1):
        folder = tmp_path / f"painted-{at:016}"
        assert run(build_and_die, folder, at) == -signal.SIGKILL
        if folder.exists():
            assert at == steps  # the last sync of the parent folder, after the renaming
            shapes, blocks = open_blocks(folder)
            assert [blocks[i].tobytes() for i in range(len(shapes))] == expected()
            continue
        build(Painted(), folder)
        assert_whole(folder)
    assert run(build_and_die, tmp_path / "painted-0", steps + 1) == 0


def test_a_build_killed_several_times_completes(folder):
    rng = np.random.default_rng(0)
    for _ in range(5):
        process = fork.Process(target=build, args=(Painted(seconds=0.02), folder))
        process.start()
        time.sleep(rng.uniform(0.0, 0.15))
        process.kill()
        process.join()
        if folder.exists():
            break
    build(Painted(), folder)
    _, blocks = open_blocks(folder)
    assert [blocks[i].tobytes() for i in range(COUNT)] == expected()


def test_a_journal_ahead_of_the_data_is_truncated(stopped, tmp_path):
    pixels = partial(stopped) / "pixels.u8"
    os.truncate(pixels, pixels.stat().st_size - 1)
    assert decoded_by(Painted(), stopped, tmp_path) == [3, 4, 5]
    assert_whole(stopped)


def test_data_ahead_of_the_journal_is_truncated(stopped, tmp_path):
    with open(partial(stopped) / "pixels.u8", "ab") as file:
        file.write(b"x" * 1000)
    assert decoded_by(Painted(), stopped, tmp_path) == [4, 5]
    assert_whole(stopped)


def test_bytes_that_never_reached_the_disk_are_decoded_again(stopped, tmp_path):
    with open(partial(stopped) / "pixels.u8", "r+b") as file:
        file.seek(4 * 20 * 30 + 7)  # within the second sample
        file.write(bytes(64))
    assert decoded_by(Painted(), stopped, tmp_path) == [1, 2, 3, 4, 5]
    assert_whole(stopped)


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:-9]], [3, 4, 5]),  # truncated
        (lambda lines: [*lines[:-1], lines[-1].rstrip(b"\n")], [3, 4, 5]),
        (lambda lines: [bytes(len(line)) for line in lines], [0, 1, 2, 3, 4, 5]),
        (lambda lines: [lines[0], b"[1]\n", *lines[2:]], [1, 2, 3, 4, 5]),
        (lambda lines: [lines[0], *lines[2:]], [1, 2, 3, 4, 5]),  # a line is missing
        (lambda lines: [lines[0], re.sub(rb'set": \d+', b'set": 7', lines[1])], [1, 2, 3, 4, 5]),
        (lambda lines: [], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_damaged_journal_is_used_up_to_the_damage(stopped, tmp_path, damage, again):
    journal = partial(stopped) / "journal.jsonl"
    journal.write_bytes(b"".join(damage(journal.read_bytes().splitlines(keepends=True))))
    assert decoded_by(Painted(), stopped, tmp_path) == again
    assert_whole(stopped)


def test_a_disk_that_returns_other_bytes_is_detected(folder, monkeypatch, tmp_path):
    def spoil(descriptor, fsync=os.fsync):
        fsync(descriptor)
        if os.fstat(descriptor).st_size > 10_000:
            os.pwrite(descriptor, b"spoilt", 4 * 20 * 30 + 7)

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(
        ValueError, match=r"pixels\.u8 does not contain the bytes written for sample 1;"
    ):
        build(Painted(), folder)
    assert not folder.exists()
    monkeypatch.undo()
    assert decoded_by(Painted(), folder, tmp_path) == [1, 2, 3, 4, 5]
    assert_whole(folder)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_a_later_run_resumes(folder, monkeypatch, tmp_path, number):
    calls = []

    def fill(path, data):
        calls.append(path)
        if len(calls) == 7:  # the bytes of the fourth sample
            module_append(path, data[:100])
            raise OSError(number, os.strerror(number))
        module_append(path, data)

    monkeypatch.setattr(module, "_append", fill)
    reason = re.escape(os.strerror(number))
    with pytest.raises(
        ValueError, match=rf"stopped \({reason}\); free disk space and repeat"
    ) as caught:
        build(Painted(), folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.undo()
    assert decoded_by(Painted(), folder, tmp_path) == [3, 4, 5]
    assert_whole(folder)


def test_an_error_of_the_dataset_is_not_attributed_to_the_cache(folder):
    class Missing(Painted):
        def pixels(self, index):
            raise FileNotFoundError("no annotations.json; download it")

    with pytest.raises(FileNotFoundError, match=r"^no annotations\.json; download it$"):
        build(Missing(), folder)


def test_a_folder_that_cannot_be_created_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "decoded" / "painted-0123456789abcdef"
    with pytest.raises(ValueError, match=r"^cannot write .*Not a directory.*data\.cache_dir"):
        build(Painted(), folder)


def test_a_read_only_disk_is_one_sentence(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)  # which opens the lock file
    with pytest.raises(ValueError, match=r"^cannot write .*Read-only.*data\.cache=none"):
        build(Painted(), folder)


def test_two_processes_decode_each_sample_once(folder, tmp_path, capfd):
    log = tmp_path / "log"
    both = [
        fork.Process(target=build, args=(Painted(seconds=0.1, log=log), folder)) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(log.read_text().split()) == [str(i) for i in range(COUNT)]
    assert (
        f"waiting for another process, which is decoding into {folder}\n" in capfd.readouterr().err
    )
    assert_whole(folder)


def test_estimate_is_exact_if_all_samples_are_measured():
    sizes = [4 * (20 + i) * (30 - i) for i in range(COUNT)]
    assert estimate(Painted(), range(COUNT)) == sum(sizes)
    assert estimate(Painted(), range(2, COUNT)) == sum(sizes[2:])


def test_estimate_measures_samples_throughout_and_skips_broken_ones():
    measured = []

    class Many(Painted):
        def labels(self, index):
            measured.append(index)
            if index == 0:
                raise SampleError("broken")
            return np.zeros((10, 10), np.uint8), TABLE

    assert estimate(Many(), range(3200)) == 3200 * 400
    assert len(measured) == 32 and max(measured) >= 3000


def test_it_prints_what_it_decodes_and_the_size(folder, capsys):
    build(Painted(), folder)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"decoding 6 samples into {folder}, about 14\.8 kB \(free [\d.,]+ \w+\)", lines[0]
    )


def test_it_prints_that_it_resumes(stopped, capsys):
    capsys.readouterr()
    build(Painted(), stopped)
    output = capsys.readouterr().err
    assert f"decoding the last 2 of 6 samples into {stopped}, about 5.0 kB (free" in output


def test_only_the_first_process_of_a_machine_prints(folder, capfd, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    build(Painted(), folder)
    assert capfd.readouterr().err == ""


def test_caches_of_other_files_are_named_and_kept(folder, capsys):
    old = folder.with_name("painted-fedcba9876543210")
    build(Painted(), old)
    other_split = folder.with_name("painted-val-0123456789abcdef")
    build(Painted(), other_split)
    capsys.readouterr()
    build(Painted(), folder)
    output = capsys.readouterr().err.splitlines()[0]
    assert output.endswith(
        f"; {old} (14.8 kB) is from other files or settings, delete it if unused"
    )
    assert old.exists() and str(other_split) not in output


def test_it_refuses_a_dataset_that_does_not_fit(folder, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(14_000))
    with pytest.raises(ValueError) as caught:
        build(Painted(), folder)
    assert str(caught.value) == (
        f"decoding 6 samples into {folder}, about 14.8 kB, does not fit on its disk (14.0 kB "
        "free); set data.cache_dir to a folder on another disk, or data.cache=none"
    )
    assert not folder.exists()


def test_a_truncated_file_is_refused(folder):
    build(Painted(), folder)
    size = (folder / "pixels.u8").stat().st_size
    os.truncate(folder / "pixels.u8", size - 1)
    with pytest.raises(ValueError) as caught:
        open_blocks(folder)
    assert str(caught.value) == (
        f"{folder}/pixels.u8 has {size - 1} bytes, expected {size}; "
        f"delete {folder} and repeat the command, which writes it again"
    )


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ('{"format": 99, "scenes": []}', "its format is 99, expected 1"),
        ('{"format": 1, "scenes": [{}]}', "missing"),
        ('{"scenes": []}', "format"),
        ("", "Expecting value"),
        (None, "No such file"),
    ],
)
def test_an_invalid_index_is_refused(folder, index, why):
    build(Painted(), folder)
    (folder / "index.json").unlink()
    if index is not None:
        (folder / "index.json").write_text(index)
    with pytest.raises(
        ValueError,
        match=f"index.json.*{why}.*; delete {folder} and repeat the command, which writes it again",
    ):
        open_blocks(folder)


def test_another_process_maps_the_file_itself(folder):
    build(Painted(), folder)
    _, blocks = open_blocks(folder)
    before = blocks[2].tobytes()
    packed = pickle.dumps(blocks)
    assert len(packed) < 2000 and before[:100] not in packed
    assert pickle.loads(packed)[2].tobytes() == before
