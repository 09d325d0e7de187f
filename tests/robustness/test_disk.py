"""Full disks and limits of the system end a run with a sentence, or not at all."""

import os
import shutil
import subprocess
from pathlib import Path

import killed
import pytest

from gald.errors import to_sentence
from gald.logger.metrics_csv import MetricsCSV
from gald.logger.tolerant import tolerant

PAGE = Path(__file__).parents[2] / "docs" / "survival.md"
TINY = [
    "data.size=[32,48]",
    "data.train_transform.crop_size=[32,48]",
    "data.train_count=2",
    "data.val_count=1",
    "data.global_batch_size=2",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "logger=csv",
    "report=false",
    "metrics=miou",
    "test=false",
    "callbacks=[checkpoint,progress]",
]
# What can be used up, and what a run says.
LIMITS = {
    "the disk of the run": ("No space left on device", "free some space"),
    "the size of files (`ulimit -f`)": ("File too large", "ulimit -f unlimited"),
    "open files (`ulimit -n`)": ("Too many open files", "ulimit -n 65536"),
}


def train(folder, log, *more, **options):
    return killed.run(["train", *TINY, f"output_dir={folder}", *more], None, log, **options)


def partial_files(folder):
    return [path for path in folder.rglob("*") if "part" in path.name]


def assert_says(log, limit):
    (sentence,) = (line for line in log.read_text().splitlines() if line.startswith("gald: "))
    for words in LIMITS[limit]:
        assert words in sentence, sentence
    return sentence


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine cannot mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_limit_on_files_names_the_file_the_remedy_and_how_to_go_on(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    assert train(folder, log, limits={"RLIMIT_FSIZE": 200_000}) == 1
    sentence = assert_says(log, "the size of files (`ulimit -f`)")
    assert f"{folder}/checkpoints/best.ckpt (File too large)" in sentence
    assert sentence.endswith(", then repeat the command")
    assert not partial_files(folder)
    assert train(folder, log) == 0, log.read_text()  # the same command starts afresh


@pytest.mark.slow
def test_too_many_open_files_names_the_limit(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    assert train(folder, log, limits={"RLIMIT_NOFILE": 2}) == 1
    assert_says(log, "open files (`ulimit -n`)")


@pytest.mark.slow
def test_a_full_disk_keeps_the_checkpoint_and_says_how_to_go_on(small_disk, tmp_path):
    folder, log, filler = small_disk / "run", tmp_path / "log", small_disk / "filler"
    whole = small_disk.parent / "whole"
    assert train(whole, log) == 0
    size = (whole / "checkpoints" / "last.ckpt").stat().st_size
    assert train(folder, log, limits={"RLIMIT_FSIZE": 200_000}) == 1
    filler.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 5 * size // 2))
    assert train(folder, log) == 1  # there is room for two checkpoints, but not for a third
    sentence = assert_says(log, "the disk of the run")
    last = folder / "checkpoints" / "last.ckpt"
    assert not partial_files(folder)
    assert sentence.endswith("ckpt_path=last") == last.is_file()
    filler.unlink()
    assert train(folder, log, "ckpt_path=last") == 0, log.read_text()
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


@pytest.mark.slow
def test_a_full_folder_for_temporary_files_does_not_matter(small_disk, tmp_path, monkeypatch):
    (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))
    folder, log = tmp_path / "run", tmp_path / "log"
    assert train(folder, log) == 0
    shutil.rmtree(folder)
    monkeypatch.setenv("TMPDIR", str(small_disk))
    assert train(folder, log) == 0, log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["files", "folder", "service"])
def test_wandb_without_what_it_needs_never_ends_a_run(what, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    folder, log = tmp_path / "run", tmp_path / "log"
    words = [word for word in TINY if not word.startswith(("callbacks", "logger"))]
    words += ["callbacks=[checkpoint,progress,prediction_images]", "logger=[csv,wandb]"]
    words.append(f"+callbacks.taken={{_target_:wandb_faults.Taken,what:{what},folder:{scratch}}}")
    assert killed.run(["train", *words, f"output_dir={folder}"], None, log) == 0, log.read_text()
    assert (folder / "results.json").is_file() and (folder / "metrics.csv").is_file()
    assert len(log.read_text().split("Traceback")) == 1


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda whole: whole[:-3], 2),
        (lambda whole: whole[: len(whole) * 2 // 3], 1),
        (lambda whole: whole.replace(b"step", b"stop", 1), 0),
        (lambda whole: bytes(range(128, 256)) * 4, 0),
        (lambda whole: whole.replace(b"\n1,", b"\nx,", 1), 1),
        (lambda whole: whole[:20] + b"\0" * 40, 0),
        (lambda whole: b"null\n", 0),
        (lambda whole: b"hello\n", 0),
        (lambda whole: b"[1, 2]\n", 0),
        (lambda whole: b"", 0),
    ],
)
def test_a_damaged_metrics_csv_is_continued(damage, kept, tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsCSV(str(path))
    for step in range(3):
        first.log_metrics({"train/loss": 0.5 + step, "lr": 0.1}, step)
    first.save()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    damaged = path.read_bytes()
    resumed = MetricsCSV(str(path))
    with pytest.warns(UserWarning, match=rf"metrics\.csv is damaged .*; its {kept} whole rows are"):
        resumed.log_metrics({"train/loss": 3.5, "lr": 0.1}, 3)
    resumed.log_metrics({"train/loss": 4.5, "lr": 0.1}, 4)
    resumed.save()
    lines = path.read_bytes().splitlines()
    assert lines[: kept + 1] == whole.splitlines()[: kept + 1]
    assert lines[kept + 1 :] == [b"3,3.5,0.1", b"4,4.5,0.1"]
    assert path.with_name("metrics.csv.damaged").read_bytes() == damaged


def test_metrics_csv_that_cannot_be_written_warns_once_and_is_complete_later(tmp_path):
    path = tmp_path / "metrics.csv"
    path.mkdir()
    (path / "file").touch()
    logger = MetricsCSV(str(path), save_every=1)
    with pytest.warns(UserWarning, match=r"metrics\.csv \(Is a directory\); name") as warned:
        for step in range(3):
            logger.log_metrics({"train/loss": 1.0}, step)
    assert len([w for w in warned if "directory" in str(w.message)]) == 1
    shutil.rmtree(path)
    logger.finalize("success")
    assert path.read_text().split() == ["step,train/loss", "0,1.0", "1,1.0", "2,1.0"]


def test_a_logger_that_fails_is_left_out_with_one_warning(tmp_path):
    calls = []

    class Failing(MetricsCSV):
        def log_metrics(self, metrics, step=None):
            calls.append(step)
            raise RuntimeError("its service has died")

    logger = tolerant(Failing(str(tmp_path / "metrics.csv")))
    with pytest.warns(
        UserWarning, match="Failing logs no more, .*: its service has died"
    ) as warned:
        for step in range(3):
            logger.log_metrics({"train/loss": 1.0}, step)
        logger.finalize("success")
    assert calls == [0] and len(warned) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, os.strerror(28), "/x/a"), "/x/a (No space left on device); free some space"),
        (OSError(24, os.strerror(24)), "a file (Too many open files); raise the limit on open"),
        (OSError(13, os.strerror(13), "/x"), "/x (Permission denied); change its permissions"),
        (OSError(30, os.strerror(30), "/x"), "/x (Read-only file system); choose another place"),
        (RuntimeError("unable to open: Too many open files (24)"), "; raise the limit on open"),
        (
            RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)"),
            "; give it more shared memory",
        ),
    ],
)
def test_the_remedy_fits_the_cause(error, words):
    assert words in to_sentence(error)


def test_page_lists_every_limit():
    rows = [f"| {what} is full | {cause}: {remedy} |" for what, (cause, remedy) in LIMITS.items()]
    assert "\n".join(rows) in PAGE.read_text()
