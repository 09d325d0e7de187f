"""`gald predict` on real files, from end to end."""

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
from gald.prediction.inputs import find_inputs
from gald.prediction.output_log import OutputLog


@pytest.fixture(scope="module")
def run(trained):
    return trained()


@pytest.fixture
def predict(run, monkeypatch, tmp_path):
    """Runs `gald predict RUN ARGUMENTS --to TMP/out` in this process; errors are raised."""

    def call(*arguments: object, network=run) -> Path:
        words = [str(network), *map(str, arguments), "--to", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["gald", "predict", *words, "--device", "cpu"])
        monkeypatch.setenv("GALD_TRACEBACK", "1")
        cli.main()
        return tmp_path / "out"

    return call


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(path, height=40, width=56, seed=0):
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


def test_folder_keeps_its_folders_and_masks_are_the_predictions(run, predict, tmp_path):
    photos = tmp_path / "photos"
    picture(photos / "a" / "1.png", 45, 67, seed=1)
    picture(photos / "b" / "1.png", 33, 90, seed=2)
    (photos / "notes.txt").write_text("no picture")
    out = predict(photos)
    assert listing(out) == ["masks/a/1.png", "masks/b/1.png", "predictions.jsonl"]
    expected = gald.load(run).predict(photos / "a" / "1.png")
    with Image.open(out / "masks" / "a" / "1.png") as mask:
        assert mask.mode == "P" and np.array_equal(np.asarray(mask), expected.labels)
    assert read(out / "masks" / "b" / "1.png").shape == (33, 90)


def test_every_kind_of_output_holds_what_the_network_said(run, predict, tmp_path):
    source = picture(tmp_path / "a.png", 45, 67)
    kinds = ["--overlay", "--masks", "ids", "--confidence", "npz", "--ld-map", "npz"]
    out = predict(source, *kinds)
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
    assert tuple(painted[darkest]) == (68, 1, 84)  # viridis begins there


def test_confidence_as_png_keeps_sixteen_bits(run, predict, tmp_path):
    source = picture(tmp_path / "a.png")
    out = predict(source, "--masks", "none", "--confidence", "png16")
    stored = cv2.imread(str(out / "confidence" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    np.testing.assert_allclose(stored / 65535, gald.load(run).predict(source).confidence, atol=1e-5)


def test_grey_and_transparent_and_other_formats_are_taken(predict, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels(40, 56)[..., 0]).save(tmp_path / "in" / "grey.png")
    Image.fromarray(pixels(40, 56)).convert("RGBA").save(tmp_path / "in" / "rgba.png")
    Image.fromarray(pixels(40, 56)).save(tmp_path / "in" / "photo.JPG", "jpeg")
    Image.fromarray(pixels(40, 56)).save(tmp_path / "in" / "scan.bmp")
    out = predict(tmp_path / "in")
    assert [read(file).shape for file in sorted((out / "masks").iterdir())] == [(40, 56)] * 4


def test_finished_outputs_are_skipped_and_it_is_said(predict, tmp_path, capsys, monkeypatch):
    picture(tmp_path / "in" / "1.png")
    picture(tmp_path / "in" / "2.png")
    out = predict(tmp_path / "in")
    capsys.readouterr()
    picture(tmp_path / "in" / "3.png")
    (out / "masks" / "2.png").unlink()
    before = (out / "masks" / "1.png").stat().st_mtime_ns
    seen = []
    whole = gald.prediction.predictor.Predictor.predict
    monkeypatch.setattr(
        gald.prediction.predictor.Predictor,
        "predict",
        lambda self, image, *rest: seen.append(image.name) or whole(self, image, *rest),
    )
    predict(tmp_path / "in")
    said = capsys.readouterr()
    assert seen == ["2.png", "3.png"]
    assert "1 of 3 are there already" in said.err
    assert "2 predicted, 1 were there, 0 skipped as bad" in said.out
    assert (out / "masks" / "1.png").stat().st_mtime_ns == before


def test_another_kind_is_added_without_touching_the_first(predict, tmp_path):
    source = picture(tmp_path / "a.png")
    out = predict(source)
    before = (out / "masks" / "a.png").stat().st_mtime_ns
    predict(source, "--overlay")
    assert (out / "overlay" / "a.png").is_file()
    assert (out / "masks" / "a.png").stat().st_mtime_ns == before


def test_what_another_network_made_is_neither_skipped_nor_overwritten(predict, trained, tmp_path):
    source = picture(tmp_path / "a.png")
    out = predict(source)
    before = (out / "masks" / "a.png").read_bytes()
    with pytest.raises(ValueError, match=r"masks/a\.png is there already, made from another file"):
        predict(source, network=trained("model/ld=none"))
    with pytest.raises(ValueError, match=r"with other options; choose another folder for --to"):
        predict(source, "--masks", "ids")
    assert (out / "masks" / "a.png").read_bytes() == before


def test_same_name_from_elsewhere_is_refused_before_any_work(predict, tmp_path):
    predict(picture(tmp_path / "x" / "a.png", seed=1))
    new = picture(tmp_path / "y" / "0.png", seed=3)
    other = picture(tmp_path / "y" / "a.png", seed=2)
    with pytest.raises(ValueError, match=r"masks/a\.png is there already"):
        predict(new, other)
    assert listing(tmp_path / "out") == ["masks/a.png", "predictions.jsonl"]


def test_files_that_differ_by_suffix_keep_it(predict, tmp_path):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "a.jpg")
    picture(tmp_path / "in" / "b.jpg")
    assert listing(predict(tmp_path / "in") / "masks") == ["a.jpg.png", "a.png.png", "b.png"]


def test_list_on_stdin(predict, tmp_path, monkeypatch):
    paths = [picture(tmp_path / "in" / name) for name in ("x/1.png", "y/1.png")]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{paths[0]}\n\n{paths[1]}\n{paths[0]}\n"))
    assert listing(predict("-") / "masks") == ["x/1.png", "y/1.png"]


def test_empty_list_on_stdin_is_told(predict, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(FileNotFoundError, match=r"list on stdin is empty; give one file a line"):
        predict("-")


def test_pattern_and_output_folder_within_the_input(predict, tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "deep" / "b.png")
    assert listing(predict(f"{tmp_path}/**/*.png") / "masks") == ["a.png", "deep/b.png"]
    assert listing(predict(tmp_path) / "masks") == ["a.png", "deep/b.png"]  # out/ is no input


@pytest.mark.parametrize("given", ["empty", "nothing*.png"])
def test_input_with_nothing_to_predict_is_told(predict, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds nothing to predict; give pictures \(\.png"):
        predict(given)
    assert not (tmp_path / "out").exists()


def test_missing_input_is_told(predict):
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder nowhere\.png"):
        predict("nowhere.png")


def test_damaged_picture_ends_it_with_one_sentence_and_keeps_the_rest(
    predict, run, tmp_path, monkeypatch, capsys
):
    for name in ("a", "c"):
        picture(tmp_path / "in" / f"{name}.png")
    whole = (tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(whole[: len(whole) // 2])
    monkeypatch.delenv("GALD_TRACEBACK", raising=False)
    words = ["gald", "predict", str(run), str(tmp_path / "in"), "--to", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    sentences = [line for line in capsys.readouterr().err.splitlines() if "gald: " in line]
    assert len(sentences) == 1 and "b.png is truncated" in sentences[0]
    assert listing(tmp_path / "out") == ["masks/a.png", "predictions.jsonl"]


def test_bad_files_are_skipped_on_request(predict, tmp_path, capsys):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"")
    picture(tmp_path / "in" / "small.png", 4, 4)
    (tmp_path / "in" / "c.mp4").write_bytes(b"no video")
    out = predict(tmp_path / "in", "--skip-bad")
    said = capsys.readouterr()
    assert "1 predicted, 0 were there, 3 skipped as bad" in said.out
    for words in ("b.png is truncated (0 bytes)", "small.png: image of 4x4 px", "c.mp4 cannot be"):
        assert words in said.err.replace("\n", " ")
    assert listing(out / "masks") == ["a.png"]


def test_all_bad_is_a_failure(predict, tmp_path):
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of 1 files could be predicted"):
        predict(tmp_path / "b.png", "--skip-bad")


def test_full_disk_keeps_what_is_finished_and_leaves_no_part(predict, tmp_path, monkeypatch):
    picture(tmp_path / "in" / "1.png")
    picture(tmp_path / "in" / "2.png")
    whole = Path.write_bytes

    def full(self, content):
        whole(self, content[:10])
        if self.name.startswith("2"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(self, content)

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
    shown = cv2.VideoCapture(str(out / "overlay" / "clip.mp4"))
    assert shown.get(cv2.CAP_PROP_FPS) == 10 and shown.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    frame = cv2.cvtColor(shown.read()[1], cv2.COLOR_BGR2RGB).astype(float)
    assert np.abs(frame - np.asarray(prediction.overlay())).mean() < 20  # the codec loses some


def test_finished_video_is_skipped(predict, tmp_path, capsys):
    source = video(tmp_path / "clip.mp4")
    for expected in ("1 predicted, 0 were there", "0 predicted, 1 were there"):
        predict(source, "--overlay", "--masks", "none")
        assert expected in capsys.readouterr().out


def test_interrupted_video_is_left_as_part_and_begun_anew(predict, tmp_path, monkeypatch):
    source = video(tmp_path / "clip.mp4")
    whole = gald.prediction.predictor.Predictor.predict
    calls = []

    def stop(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(gald.prediction.predictor.Predictor, "predict", stop)
        with pytest.raises(SystemExit):
            predict(source, "--overlay")
    out = tmp_path / "out"
    assert {path.name for path in (out / "masks").iterdir()} == {"clip.part"}
    assert {path.name for path in (out / "overlay").iterdir()} == {"clip.part.mp4"}
    predict(source, "--overlay")
    assert {path.name for path in (out / "masks").iterdir()} == {"clip"}
    assert {path.name for path in (out / "overlay").iterdir()} == {"clip.mp4"}
    assert len(listing(out / "masks" / "clip")) == 4


def test_frames_that_a_cut_video_lacks_are_told(predict, tmp_path, capsys):
    frames = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(frames), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (64, 48))
    for index in range(6):
        writer.write(pixels(48, 64, index))
    writer.release()
    whole = frames.read_bytes()
    frames.write_bytes(whole[: len(whole) // 2])
    out = predict(frames)
    made = len(listing(out / "masks" / "clip"))
    assert 0 < made < 6
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"clip.avi: read {made} frames of the 6 in its header" in said


def test_video_of_odd_size_and_the_picture_beside_it(predict, tmp_path):
    frames = tmp_path / "in" / "odd.avi"
    frames.parent.mkdir()
    writer = cv2.VideoWriter(str(frames), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (67, 45))
    for _ in range(2):
        writer.write(pixels(45, 67))
    writer.release()
    picture(tmp_path / "in" / "odd.png")
    out = predict(tmp_path / "in", "--overlay")
    assert listing(out / "overlay") == ["odd.avi.mp4", "odd.png.png"]
    assert (out / "masks" / "odd.avi" / "000001.png").is_file()


def test_other_inference_by_name_and_key(predict, tmp_path):
    source = picture(tmp_path / "a.png")
    out = predict(source, "--inference", "whole", "inference.align_corners=true")
    assert read(out / "masks" / "a.png").shape == (40, 56)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inference", "magic"], r"invalid choice: 'magic'"),
        (["inference.align_corners=true"], r"needs --inference, one of .*whole"),
        (["--masks", "none"], r"leaves nothing to write; add --overlay"),
        (["--mask", "ids"], r"unrecognized arguments: --mask ids.*see gald predict --help"),
    ],
)
def test_wrong_words_are_told(predict, tmp_path, arguments, message):
    source = picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        predict(source, *arguments)


def test_file_as_target_folder_is_told(predict, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match=r"--to .*out is a file; name a folder"):
        predict(picture(tmp_path / "a.png"))
    assert (tmp_path / "out").read_text() == "mine"


def test_ld_map_of_a_network_without_one_is_told(predict, trained, tmp_path):
    source = picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"has no LD map, because its NoDistribution decides"):
        predict(source, "--ld-map", "png", network=trained("model/ld=none"))


def test_note_cut_by_a_power_failure_costs_one_output(tmp_path):
    log = OutputLog(tmp_path)
    for name in "ab":
        log.write(f"{name}.png", b"content", name)
    notes = (tmp_path / "predictions.jsonl").read_text()
    (tmp_path / "predictions.jsonl").write_text(notes[:-20])
    (tmp_path / "b.png").unlink()  # its note is written before it takes its name
    again = OutputLog(tmp_path)
    assert again.has("a.png", "a") and not again.has("b.png", "b")
    again.write("b.png", b"content", "b")
    assert OutputLog(tmp_path).has("b.png", "b")
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["output"] == "b.png"


def test_one_file_is_named_without_its_folders(tmp_path):
    path = picture(tmp_path / "deep" / "a.png")
    assert [s.name for s in find_inputs([str(path)], tmp_path / "out")] == ["a"]
