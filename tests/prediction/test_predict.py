"""`gald predict` on files, from end to end."""

import errno
import io
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import gald
from gald import cli
from gald.prediction import batch
from gald.prediction.inputs import find_inputs
from gald.prediction.output_log import OutputLog


@pytest.fixture(scope="module")
def run(trained):
    return trained()


@pytest.fixture
def predict(run, monkeypatch, tmp_path):
    """Runs `gald predict RUN ARGUMENTS --to TMP/out` in this process; errors are raised."""

    def call(*arguments: object, network=run) -> Path:
        arguments = [str(network), *map(str, arguments), "--to", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["gald", "predict", *arguments, "--device", "cpu"])
        monkeypatch.setenv("GALD_TRACEBACK", "1")
        cli.main()
        return tmp_path / "out"

    return call


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save_image(path, height=40, width=56, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(height, width, seed)).save(path)
    return path


def video(path, frames=4, height=48, width=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (width, height))
    for index in range(frames):
        writer.write(np.full((height, width, 3), 40 * index, np.uint8))
    writer.release()
    return path


def listing(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def read(path):
    with Image.open(path) as opened:
        return np.asarray(opened)


def test_masks_keep_the_folders_and_equal_the_predictions(run, predict, tmp_path):
    photos = tmp_path / "photos"
    save_image(photos / "a" / "1.png", 45, 67, seed=1)
    save_image(photos / "b" / "1.png", 33, 90, seed=2)
    (photos / "notes.txt").write_text("no image")
    out = predict(photos)
    assert listing(out) == ["masks/a/1.png", "masks/b/1.png", "predictions.jsonl"]
    expected = gald.load(run).predict(photos / "a" / "1.png")
    with Image.open(out / "masks" / "a" / "1.png") as mask:
        assert mask.mode == "P" and np.array_equal(np.asarray(mask), expected.labels)
    assert read(out / "masks" / "b" / "1.png").shape == (33, 90)


def test_every_kind_of_output_equals_the_prediction(run, predict, tmp_path):
    source = save_image(tmp_path / "a.png", 45, 67)
    flags = ["--overlay", "--masks", "ids", "--confidence", "npz", "--ld-map", "npz"]
    out = predict(source, *flags)
    assert listing(out) == [
        "confidence/a.npz",
        "ld_map/a.npz",
        "ld_map/a.png",
        "masks/a.png",
        "overlay/a.png",
        "predictions.jsonl",
    ]
    prediction = gald.load(run).predict(source)
    with Image.open(out / "masks" / "a.png") as mask:
        assert mask.mode == "L" and np.array_equal(np.asarray(mask), prediction.labels)
    assert np.array_equal(read(out / "overlay" / "a.png"), np.asarray(prediction.overlay()))
    with np.load(out / "confidence" / "a.npz", allow_pickle=False) as file:
        assert np.array_equal(file["confidence"], prediction.confidence)
    with np.load(out / "ld_map" / "a.npz", allow_pickle=False) as file:
        assert np.array_equal(file["ld_map"], prediction.ld_map)
    painted = read(out / "ld_map" / "a.png")
    darkest = np.unravel_index(prediction.ld_map.argmin(), prediction.ld_map.shape)
    assert tuple(painted[darkest]) == (68, 1, 84)  # the first colour of viridis


def test_confidence_as_png_keeps_sixteen_bits(run, predict, tmp_path):
    source = save_image(tmp_path / "a.png")
    out = predict(source, "--masks", "none", "--confidence", "png16")
    stored = cv2.imread(str(out / "confidence" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    np.testing.assert_allclose(stored / 65535, gald.load(run).predict(source).confidence, atol=1e-5)


def test_grey_and_transparent_images_and_other_formats_are_accepted(predict, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels(40, 56)[..., 0]).save(tmp_path / "in" / "grey.png")
    Image.fromarray(pixels(40, 56)).convert("RGBA").save(tmp_path / "in" / "rgba.png")
    Image.fromarray(pixels(40, 56)).save(tmp_path / "in" / "photo.JPG", "jpeg")
    Image.fromarray(pixels(40, 56)).save(tmp_path / "in" / "scan.bmp")
    out = predict(tmp_path / "in")
    assert [read(file).shape for file in sorted((out / "masks").iterdir())] == [(40, 56)] * 4


@pytest.mark.parametrize("inference", ["whole", "slide", "multi_scale"])
def test_image_smaller_than_the_stride_gets_a_label_for_every_pixel(predict, tmp_path, inference):
    save_image(tmp_path / "tiny.png", 5, 7)
    out = predict(tmp_path / "tiny.png", "--inference", inference)
    assert read(out / "masks" / "tiny.png").shape == (5, 7)


def test_finished_outputs_are_skipped_and_reported(predict, tmp_path, capsys, monkeypatch):
    save_image(tmp_path / "in" / "1.png")
    save_image(tmp_path / "in" / "2.png")
    out = predict(tmp_path / "in")
    capsys.readouterr()
    save_image(tmp_path / "in" / "3.png")
    (out / "masks" / "2.png").unlink()
    before = (out / "masks" / "1.png").stat().st_mtime_ns
    predicted, read = [], batch.to_tensor
    monkeypatch.setattr(batch, "to_tensor", lambda path: predicted.append(path.name) or read(path))
    predict(tmp_path / "in")
    printed = capsys.readouterr()
    assert sorted(predicted) == ["2.png", "3.png"]
    assert "1 of 3 files are already predicted" in printed.err
    assert "2 predicted, 1 already done, 0 failed" in printed.out
    assert (out / "masks" / "1.png").stat().st_mtime_ns == before


def test_another_kind_of_output_leaves_the_first_one_unchanged(predict, tmp_path):
    source = save_image(tmp_path / "a.png")
    out = predict(source)
    before = (out / "masks" / "a.png").stat().st_mtime_ns
    predict(source, "--overlay")
    assert (out / "overlay" / "a.png").is_file()
    assert (out / "masks" / "a.png").stat().st_mtime_ns == before


def test_outputs_of_another_network_are_neither_skipped_nor_overwritten(predict, trained, tmp_path):
    source = save_image(tmp_path / "a.png")
    out = predict(source)
    before = (out / "masks" / "a.png").read_bytes()
    with pytest.raises(ValueError, match=r"masks/a\.png already exists, made from another file"):
        predict(source, network=trained("model/ld=none"))
    with pytest.raises(ValueError, match=r"with other options; choose another --to"):
        predict(source, "--masks", "ids")
    assert (out / "masks" / "a.png").read_bytes() == before


def test_same_name_from_another_folder_is_refused_before_any_prediction(predict, tmp_path):
    predict(save_image(tmp_path / "x" / "a.png", seed=1))
    new = save_image(tmp_path / "y" / "0.png", seed=3)
    other = save_image(tmp_path / "y" / "a.png", seed=2)
    with pytest.raises(ValueError, match=r"masks/a\.png already exists"):
        predict(new, other)
    assert listing(tmp_path / "out") == ["masks/a.png", "predictions.jsonl"]


def test_files_that_differ_only_in_suffix_keep_it(predict, tmp_path):
    save_image(tmp_path / "in" / "a.png")
    save_image(tmp_path / "in" / "a.jpg")
    save_image(tmp_path / "in" / "b.jpg")
    assert listing(predict(tmp_path / "in") / "masks") == ["a.jpg.png", "a.png.png", "b.png"]


def test_no_two_files_share_a_name_and_none_leaves_the_output_folder(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    paths = [save_image(folder / name) for name in ("x.jpg", "x.png", "x.jpg.png")]
    there = {file.path: file.name for file in find_inputs([str(folder)], tmp_path / "out")}
    assert [there[path] for path in paths] == ["x.jpg", "x.png", "x.jpg.png"]
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    save_image(tmp_path / "cwd" / "a.jpg")
    given = ["a.jpg", "../photos/x.png", "../photos/*.jpg"]
    names = [file.name for file in find_inputs(given, Path("../out"))]
    assert names == ["cwd/a", "photos/x.png", "photos/x.jpg"]
    save_image(tmp_path / "out" / "masks" / "seen.png")
    assert len(find_inputs([".."], Path("../cwd/../out"))) == 4  # none of the output folder
    with pytest.raises(ValueError, match=r"\.\. after its first pattern"):
        find_inputs(["*/../a.jpg"], tmp_path / "out")


def test_a_picture_on_stdin_is_no_list(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xd8\0\0")))
    with pytest.raises(ValueError, match=r"it is a file itself; name the file in place of -"):
        find_inputs(["-"], Path("out"))


def listed(text):
    return io.TextIOWrapper(io.BytesIO(text.encode()))


def test_list_on_stdin(predict, tmp_path, monkeypatch):
    paths = [save_image(tmp_path / "in" / name) for name in ("x/1.png", "y/1.png")]
    monkeypatch.setattr(sys, "stdin", listed(f"{paths[0]}\n\n{paths[1]}\n{paths[0]}\n"))
    assert listing(predict("-") / "masks") == ["x/1.png", "y/1.png"]


def test_empty_list_on_stdin_is_an_error(predict, monkeypatch):
    monkeypatch.setattr(sys, "stdin", listed("\n"))
    with pytest.raises(FileNotFoundError, match=r"list on stdin is empty; give one file per line"):
        predict("-")


def test_pattern_matches_and_output_folder_inside_the_input_is_skipped(predict, tmp_path):
    save_image(tmp_path / "a.png")
    save_image(tmp_path / "deep" / "b.png")
    assert listing(predict(f"{tmp_path}/**/*.png") / "masks") == ["a.png", "deep/b.png"]
    assert listing(predict(tmp_path) / "masks") == ["a.png", "deep/b.png"]  # out/ is no input


@pytest.mark.parametrize("given", ["empty", "nothing*.png"])
def test_input_without_images_is_an_error(predict, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no image or video; give images \(\.png"):
        predict(given)
    assert not (tmp_path / "out").exists()


def test_missing_input_is_an_error(predict):
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder nowhere\.png"):
        predict("nowhere.png")


def test_damaged_image_is_one_sentence_and_finished_outputs_are_kept(
    predict, run, tmp_path, monkeypatch, capsys
):
    for name in ("a", "c"):
        save_image(tmp_path / "in" / f"{name}.png")
    whole = (tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(whole[: len(whole) // 2])
    monkeypatch.delenv("GALD_TRACEBACK", raising=False)
    command = ["gald", "predict", str(run), str(tmp_path / "in"), "--to", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    sentences = [line for line in capsys.readouterr().err.splitlines() if "gald: " in line]
    assert len(sentences) == 1 and "b.png is truncated" in sentences[0]
    assert "1 of 3 files could not be predicted" in sentences[0]
    assert listing(tmp_path / "out") == ["masks/a.png", "masks/c.png", "predictions.jsonl"]


def test_a_dangling_link_does_not_stop_the_other_files(predict, tmp_path, capsys):
    for name in ("a", "c"):
        save_image(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "gone.png")
    sentence = r"b\.png is a link to .*gone\.png, which does not exist; restore the target"
    for given in (tmp_path / "in", tmp_path / "in" / "*.png"):
        with pytest.raises(ValueError, match=rf"1 of 3 files could not be predicted.*{sentence}"):
            predict(given)
        assert "skipped: " in capsys.readouterr().err
        assert listing(tmp_path / "out" / "masks") == ["a.png", "c.png"]
    predict(tmp_path / "in", "--skip-bad")
    assert "0 predicted, 2 already done, 1 failed" in capsys.readouterr().out


def test_bad_files_are_skipped_on_request(predict, tmp_path, capsys):
    save_image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"")
    (tmp_path / "in" / "c.mp4").write_bytes(b"no video")
    out = predict(tmp_path / "in", "--skip-bad")
    printed = capsys.readouterr()
    assert "1 predicted, 0 already done, 2 failed" in printed.out
    for text in ("b.png is truncated (0 bytes)", "c.mp4 cannot be"):
        assert text in printed.err.replace("\n", " ")
    assert listing(out / "masks") == ["a.png"]


def test_only_bad_files_are_an_error(predict, tmp_path):
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of 1 files could be predicted"):
        predict(tmp_path / "b.png", "--skip-bad")


def test_full_disk_keeps_finished_outputs_and_leaves_no_partial_file(
    predict, tmp_path, monkeypatch
):
    save_image(tmp_path / "in" / "1.png")
    save_image(tmp_path / "in" / "2.png")
    original = Path.write_bytes

    def full(self, content):
        original(self, content[:10])
        if self.name.startswith("2"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"cannot write .*2\.png \(No space left on device\)"):
        predict(tmp_path / "in")
    assert listing(tmp_path / "out") == ["masks/1.png", "predictions.jsonl"]


def test_video_gives_masks_of_every_frame_and_an_overlay_video(run, predict, tmp_path):
    source = video(tmp_path / "in" / "clip.mp4")
    out = predict(source, "--overlay", "--ld-map", "npz")
    frames = [f"00000{index}" for index in range(4)]
    assert listing(out / "masks") == [f"clip/{frame}.png" for frame in frames]
    assert len(listing(out / "ld_map" / "clip")) == 8
    assert listing(out / "overlay") == ["clip.mp4"]
    capture = cv2.VideoCapture(str(source))
    first = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
    prediction = gald.load(run).predict(first)
    assert np.array_equal(read(out / "masks" / "clip" / "000000.png"), prediction.labels)
    overlay = cv2.VideoCapture(str(out / "overlay" / "clip.mp4"))
    assert overlay.get(cv2.CAP_PROP_FPS) == 10 and overlay.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    frame = cv2.cvtColor(overlay.read()[1], cv2.COLOR_BGR2RGB).astype(float)
    assert np.abs(frame - np.asarray(prediction.overlay())).mean() < 20  # the codec is lossy


def test_finished_video_is_skipped(predict, tmp_path, capsys):
    source = video(tmp_path / "clip.mp4")
    for expected in ("1 predicted, 0 already done", "0 predicted, 1 already done"):
        predict(source, "--overlay", "--masks", "none")
        assert expected in capsys.readouterr().out


def test_interrupted_video_leaves_a_partial_output_and_restarts(predict, tmp_path, monkeypatch):
    source = video(tmp_path / "clip.mp4")
    original = gald.prediction.predictor.Predictor.predict
    calls = []

    def stop(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(gald.prediction.predictor.Predictor, "predict", stop)
        with pytest.raises(SystemExit):
            predict(source, "--overlay")
    out = tmp_path / "out"
    partial = f"clip.{os.getpid()}.gald-part"
    assert {path.name for path in (out / "masks").iterdir()} == {partial}
    assert {path.name for path in (out / "overlay").iterdir()} == {f"{partial}.mp4"}
    predict(source, "--overlay")
    assert {path.name for path in (out / "masks").iterdir()} == {"clip"}
    assert {path.name for path in (out / "overlay").iterdir()} == {"clip.mp4"}
    assert len(listing(out / "masks" / "clip")) == 4


def test_missing_frames_of_a_cut_video_are_reported(predict, tmp_path, capsys):
    frames = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(frames), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (64, 48))
    for index in range(6):
        writer.write(pixels(48, 64, index))
    writer.release()
    whole = frames.read_bytes()
    frames.write_bytes(whole[: len(whole) // 2])
    out = predict(frames)
    count = len(listing(out / "masks" / "clip"))
    assert 0 < count < 6
    printed = capsys.readouterr().err.replace("\n", " ")
    assert f"clip.avi: read {count} of the 6 frames in its header" in printed


def test_video_of_odd_size_and_an_image_of_the_same_name(predict, tmp_path):
    frames = tmp_path / "in" / "odd.avi"
    frames.parent.mkdir()
    writer = cv2.VideoWriter(str(frames), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (67, 45))
    for _ in range(2):
        writer.write(pixels(45, 67))
    writer.release()
    save_image(tmp_path / "in" / "odd.png")
    out = predict(tmp_path / "in", "--overlay")
    assert listing(out / "overlay") == ["odd.avi.mp4", "odd.png.png"]
    assert (out / "masks" / "odd.avi" / "000001.png").is_file()


def test_a_video_beside_the_folder_of_its_frames(predict, tmp_path):
    video(tmp_path / "in" / "clip.mp4", frames=2)
    save_image(tmp_path / "in" / "clip" / "000000.png")
    save_image(tmp_path / "in" / "clip.jpg")
    save_image(tmp_path / "in" / "other.png" / "a.png")
    save_image(tmp_path / "in" / "other.jpg")
    out = predict(tmp_path / "in")
    assert listing(out / "masks") == [
        "clip.jpg.png",
        "clip.mp4/000000.png",
        "clip.mp4/000001.png",
        "clip/000000.png",
        "other.jpg.png",
        "other.png/a.png",
    ]


def test_another_inference_is_chosen_by_name_and_key(predict, tmp_path):
    source = save_image(tmp_path / "a.png")
    out = predict(source, "--inference", "whole", "inference.align_corners=true")
    assert read(out / "masks" / "a.png").shape == (40, 56)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inference", "magic"], r"--inference magic is no option; choose one of .*whole"),
        (["inference.align_corners=true"], r"needs --inference, one of .*whole"),
        (["--masks", "none"], r"leaves nothing to write; add --overlay"),
        (["--mask", "ids"], r"Unknown option: --mask; did you mean --masks\? See gald"),
    ],
)
def test_invalid_arguments_are_named(predict, tmp_path, arguments, message):
    source = save_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        predict(source, *arguments)


def test_file_as_target_folder_is_refused(predict, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match=r"--to .*out is a file; name a folder"):
        predict(save_image(tmp_path / "a.png"))
    assert (tmp_path / "out").read_text() == "mine"


def test_ld_map_of_a_network_without_one_is_an_error(predict, trained, tmp_path):
    source = save_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"has no LD map, because NoDistribution does not"):
        predict(source, "--ld-map", "png", network=trained("model/ld=none"))


def test_log_line_cut_by_a_power_failure_loses_one_output(tmp_path):
    log = OutputLog(tmp_path)
    for name in "ab":
        log.write(f"{name}.png", b"content", name)
    text = (tmp_path / "predictions.jsonl").read_text()
    (tmp_path / "predictions.jsonl").write_text(text[:-20])
    (tmp_path / "b.png").unlink()  # the log line is written before the file is renamed
    again = OutputLog(tmp_path)
    assert again.has("a.png", "a") and not again.has("b.png", "b")
    again.write("b.png", b"content", "b")
    assert OutputLog(tmp_path).has("b.png", "b")
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["output"] == "b.png"


def test_a_damaged_line_of_the_log_stops_nothing(tmp_path):
    OutputLog(tmp_path).write("a.png", b"content", "a")
    log = tmp_path / "predictions.jsonl"
    log.write_bytes(b"\xff\xfe not text\n" + log.read_bytes())
    assert OutputLog(tmp_path).has("a.png", "a")


def test_a_single_file_is_named_without_its_folders(tmp_path):
    path = save_image(tmp_path / "deep" / "a.png")
    assert [s.name for s in find_inputs([str(path)], tmp_path / "out")] == ["a"]
