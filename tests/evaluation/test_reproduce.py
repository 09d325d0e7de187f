"""`gald eval --check` confirms a correct receipt and detects a false one."""

import json
import math
import shutil
import sys

import pytest
import torch

from gald import cli
from gald.evaluation.evaluator import Evaluator
from gald.inference import LabelMap
from gald.inference.precision import refuse_two_precisions
from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.trimap import Trimap
from gald.run.results import write_results

SMALL = ["data.size=[48,64]", "data.val_count=3", "data.num_workers=0", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def results(trained, tmp_path_factory):
    """`results.json` of an evaluation of a tiny network."""
    folder = tmp_path_factory.mktemp("evaluated") / "here"
    words = ["eval", f"ckpt_path={trained(*SMALL)}", f"output_dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gald", *words, "trainer.accelerator=cpu"])
        patch.setenv("GALD_TRACEBACK", "1")
        cli.main()
    return folder / "results.json"


def reproduce(monkeypatch, *arguments):
    monkeypatch.setenv("GALD_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["gald", "eval", "--check", *map(str, arguments)])
    cli.main()


def forged(results, tmp_path, change):
    content = json.loads(results.read_text())
    change(content)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    return path


def test_correct_receipt_is_confirmed(results, monkeypatch, capsys):
    reproduce(monkeypatch, results, "trainer.accelerator=cpu")
    assert "numbers and all labels equal" in " ".join(capsys.readouterr().out.split())


def test_changed_number_is_detected(results, monkeypatch, tmp_path):
    path = forged(results, tmp_path, lambda c: c.update({"val/miou": c["val/miou"] + 0.01}))
    with pytest.raises(ValueError, match=r"1 of \d+ numbers .* most at val/miou"):
        reproduce(monkeypatch, path)


def test_only_scores_of_confidences_may_differ_by_rounding(results, monkeypatch, tmp_path):
    def moved(key, gap):
        return forged(results, tmp_path, lambda c: c.update({key: c[key] + gap}))

    reproduce(monkeypatch, moved("val/ece", 5e-7), "trainer.accelerator=cpu")
    for key, gap in (("val/ece", 2e-6), ("val/accuracy", 5e-7)):
        with pytest.raises(ValueError, match=rf"1 of \d+ numbers .* most at {key}"):
            reproduce(monkeypatch, moved(key, gap), "trainer.accelerator=cpu")


def test_missing_number_is_detected(results, monkeypatch, tmp_path):
    path = forged(results, tmp_path, lambda c: c.update({"val/miou": None}))
    with pytest.raises(ValueError, match="most at val/miou: None then"):
        reproduce(monkeypatch, path)


@pytest.mark.parametrize("signed", ["ground_truth_sha256", "predictions_sha256"])
def test_changed_masks_or_predictions_are_detected(results, monkeypatch, tmp_path, signed):
    path = forged(results, tmp_path, lambda c: c["val/receipt"].update({signed: "0"}))
    with pytest.raises(ValueError, match=f"hashes that differ: {signed}"):
        reproduce(monkeypatch, path)


def test_another_checkpoint_is_detected(results, monkeypatch, tmp_path):
    path = forged(results, tmp_path, lambda c: c["val/receipt"].update(checkpoint_sha256="0"))
    with pytest.raises(ValueError, match="is not the checkpoint that"):
        reproduce(monkeypatch, path)


def test_new_path_of_a_moved_checkpoint_can_be_given(results, monkeypatch, tmp_path):
    receipt = json.loads(results.read_text())["val/receipt"]
    moved = shutil.copy(receipt["checkpoint"], tmp_path / "moved.ckpt")
    path = forged(results, tmp_path, lambda c: c["val/receipt"].update(checkpoint="/gone.ckpt"))
    with pytest.raises(FileNotFoundError, match=r"/gone.ckpt of the receipt does not exist"):
        reproduce(monkeypatch, path)
    reproduce(monkeypatch, path, f"ckpt_path={moved}")


@pytest.mark.parametrize("checkpoint", [5, ["a"], {"a": 1}, True], ids=str)
def test_checkpoint_of_a_receipt_that_is_no_text_is_refused(
    results, monkeypatch, tmp_path, checkpoint
):
    path = forged(results, tmp_path, lambda c: c["val/receipt"].update(checkpoint=checkpoint))
    with pytest.raises(ValueError, match=r"as val/receipt\.checkpoint, which must be .*; evaluate"):
        reproduce(monkeypatch, path)


def test_checkpoint_that_a_receipt_leaves_out_can_be_given(results, monkeypatch, tmp_path):
    file = json.loads(results.read_text())["val/receipt"]["checkpoint"]
    path = forged(results, tmp_path, lambda c: c["val/receipt"].pop("checkpoint"))
    reproduce(monkeypatch, path, f"ckpt_path={file}", "trainer.accelerator=cpu")


@pytest.mark.parametrize(
    "word", ["trainer=ddp_cpu", "trainer.devices=2", "metrics=miou", "inference=slide", "--help"]
)
def test_options_that_would_change_the_evaluation_are_refused(results, monkeypatch, word):
    with pytest.raises(ValueError, match=f"cannot use {word}; it accepts ckpt_path=FILE"):
        reproduce(monkeypatch, results, word)


def test_precision_of_the_receipt_is_used(results, gald_cli, monkeypatch, tmp_path):
    receipt = json.loads(results.read_text())["val/receipt"]
    words = ["eval", f"ckpt_path={receipt['checkpoint']}", "trainer.accelerator=cpu"]
    gald_cli(*words, "trainer.precision=bf16-mixed", f"output_dir={tmp_path}")
    reproduce(monkeypatch, tmp_path / "results.json", "trainer.accelerator=cpu")
    with pytest.raises(ValueError, match="also changed: precision bf16-mixed then, 32-true now"):
        reproduce(monkeypatch, tmp_path / "results.json", "trainer.precision=32-true")


def test_precision_of_the_inference_is_in_the_receipt(results, gald_cli, monkeypatch, tmp_path):
    receipt = json.loads(results.read_text())["val/receipt"]
    assert receipt["inference"]["precision"] is None
    words = ["eval", f"ckpt_path={receipt['checkpoint']}", "trainer.accelerator=cpu"]
    words += ["inference.precision=bf16", "metrics=miou"]
    gald_cli(*words, f"output_dir={tmp_path}")
    path = tmp_path / "results.json"
    assert json.loads(path.read_text())["val/receipt"]["inference"]["precision"] == "bf16"
    reproduce(monkeypatch, path, "trainer.accelerator=cpu")
    with pytest.raises(ValueError, match=r"inference\.precision=bf16 .* does not change; leave"):
        reproduce(monkeypatch, path, "trainer.precision=32-true")
    with pytest.raises(ValueError, match=r"with inference\.precision = None and .* with bf16"):
        gald_cli("compare", str(results.parent), str(tmp_path), "--split", "val")


def test_two_low_precisions_are_refused():
    message = r"=bf16 and trainer\.precision=16-mixed are .* set inference\.precision=null"
    with pytest.raises(ValueError, match=message):
        refuse_two_precisions("bf16", "16-mixed")
    refuse_two_precisions("bf16", "bf16-mixed")
    refuse_two_precisions(None, "16-mixed")


def test_missing_receipt_is_reported_in_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give the results\.json of a run"):
        reproduce(monkeypatch, tmp_path / "results.json")
    (tmp_path / "results.json").write_text('{"val/miou": 0.5}')
    with pytest.raises(ValueError, match="has no receipt"):
        reproduce(monkeypatch, tmp_path / "results.json")
    for words in (["--check"], ["--check="]):
        monkeypatch.setattr(sys, "argv", ["gald", "eval", *words])
        with pytest.raises(ValueError, match=r"needs the results\.json"):
            cli.main()
    monkeypatch.setattr(sys, "argv", ["gald", "eval", f"--check={tmp_path / 'results.json'}"])
    with pytest.raises(ValueError, match="has no receipt"):
        cli.main()


def test_counts_per_image_give_the_same_scores_as_running_totals():
    generator = torch.Generator().manual_seed(0)
    labels, mask = (torch.randint(0, 4, (3, 9, 11), generator=generator) for _ in range(2))
    labels, mask = labels.byte(), mask.byte()
    mask[:, 0] = 255
    scores = []
    for per_image in (False, True):
        evaluator = Evaluator([ConfusionMatrix(4), Trimap(4)], per_image=per_image)
        evaluator.update(LabelMap(labels[:2], None), mask[:2], ["a", "b"])
        evaluator.update(LabelMap(labels[2:], None), mask[2:], ["c"])
        scores.append(evaluator.compute(["k", "l", "m", "n"]))
    assert scores[0] == pytest.approx(scores[1], abs=0, rel=0, nan_ok=True)
    assert evaluator.images.names == ["a", "b", "c"]
    assert evaluator.fingerprints()["images"] == 3


def test_hashes_depend_on_content_and_names_not_on_order():
    masks = torch.stack([torch.full((4, 4), i) for i in range(3)]).byte()

    def hashes(order, names, masks=masks):
        evaluator = Evaluator([ConfusionMatrix(4)], per_image=True)
        for i in order:
            evaluator.update(LabelMap(masks[i : i + 1], None), masks[i : i + 1], [names[i]])
        return evaluator.fingerprints()

    first = hashes([0, 1, 2], "abc")
    assert hashes([2, 0, 1], "abc") == first
    assert hashes([0, 1, 2], "abd")["images_sha256"] != first["images_sha256"]
    wide = masks.reshape(3, 2, 8)
    assert hashes([0, 1, 2], "abc", wide)["ground_truth_sha256"] != first["ground_truth_sha256"]


def test_an_absent_class_is_null_on_disk_and_left_out_of_the_mean(tmp_path):
    evaluator = Evaluator([ConfusionMatrix(3)])
    labels, mask = torch.tensor([[[0, 1]]]).byte(), torch.tensor([[[0, 0]]])
    evaluator.update(LabelMap(labels, None), mask, ["a"])
    scores = evaluator.compute(["present", "predicted", "absent"])
    assert math.isnan(scores["iou/absent"]) and scores["miou"] == 0.25
    write_results(tmp_path / "r.json", scores)
    assert json.loads((tmp_path / "r.json").read_text())["iou/absent"] is None


def test_receipt_and_checkpoint_cannot_call_foreign_code(results, monkeypatch, tmp_path):
    foreign = {"_target_": "os.system", "command": f"touch {tmp_path}/called"}
    path = forged(results, tmp_path, lambda c: c["val/receipt"].update(inference=foreign))
    with pytest.raises(ValueError, match=r"would call os\.system"):
        reproduce(monkeypatch, path)
    content = torch.load(json.loads(results.read_text())["checkpoint"], weights_only=True)
    content["gald"]["config"]["model"]["ga"] = foreign
    torch.save(content, tmp_path / "evil.ckpt")
    monkeypatch.setattr(sys, "argv", ["gald", "eval", f"ckpt_path={tmp_path}/evil.ckpt"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"would call os\.system"):
        cli.main()
    assert not (tmp_path / "called").exists()


def test_evaluation_does_not_build_parts_that_only_training_uses(trained, gald_cli, tmp_path):
    path = trained(*SMALL) / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    for part in ("loss", "optimizer", "scheduler"):
        content["gald"]["config"][part] = {"_target_": "os.system", "command": "false"}
    torch.save(content, path)
    gald_cli("eval", f"ckpt_path={path}", f"output_dir={tmp_path}/here", "metrics=miou")
    assert (tmp_path / "here" / "results.json").exists()
