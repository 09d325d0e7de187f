"""Differences between cells besides their factors are reported; expected ones are not."""

import json
import sys

import pytest
from omegaconf import OmegaConf

from gald import cli
from gald.config import CONF_DIR
from gald.run.plain import RefusedError
from gald.sweep.table.consistency import ELSEWHERE, Audited, audit, audit_configs
from gald.sweep.table.table import print_table


def test_sweep_that_differs_in_its_factors_only_passes(toy_sweep):
    assert audit(toy_sweep()) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": {"global_batch_size": 4}}, "global batch (data.global_batch_size) differs"),
        ({"scheduler": {"power": 1.0}}, "schedule (scheduler.power) differs"),
        ({"model": {"backbone": {"weights": "a.pth"}}}, "pretrained weights (model.backbone.w"),
        ({"data": {"train_transform": {"crop_size": [1, 2]}}}, "crop (data.train_transform.crop"),
        ({"inference": {"stride": 5}}, "inference (inference.stride) differs"),
        ({"metrics": {"size": {"edges": [0.1]}}}, "metrics (metrics.size.edges) differs"),
    ],
)
def test_difference_outside_the_factors_is_named_with_its_cells(toy_sweep, change, sentence):
    def config(content, ga, ld, seed):
        if (ga, ld) == ("psp", "mask"):
            content.update(OmegaConf.to_container(OmegaConf.merge(content, change)))

    findings = audit(toy_sweep(config=config))
    assert len(findings) == 1 and findings[0].startswith(sentence)
    assert "in 9 (ga=none ld=none seed=0; ga=none ld=none seed=1; ...)" in findings[0]
    assert "in 3 (ga=psp ld=mask seed=0;" in findings[0]


def test_seed_sets_and_receipts_are_compared(toy_sweep):
    folder = toy_sweep(unfinished={("psp", "mask", 2): ("failed", "crashed")})
    path = folder / "cell_3" / "results.json"
    results = json.loads(path.read_text())
    results["val/receipt"]["images_sha256"] = "ab"
    path.write_text(json.dumps(results))
    seeds, images = audit(folder)
    assert seeds.startswith("set of seeds differs") and "0, 1 in 1 (ga=psp ld=mask)" in seeds
    assert images.startswith("evaluated images (val, images_sha256) differs")
    assert "in 1 (ga=none ld=mask seed=0)" in images


def test_same_difference_in_both_splits_is_reported_once(toy_sweep):
    folder = toy_sweep(ga=("none",), seeds=(0,))
    for index, commit in enumerate(("abc", "def")):
        path = folder / f"cell_{index}" / "results.json"
        results = json.loads(path.read_text())
        results["val/receipt"]["commit"] = commit
        path.write_text(json.dumps(results | {"test/receipt": results["val/receipt"]}))
    (only,) = audit(folder)
    assert only.startswith("commit of the code (val, commit) differs")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"val/miou": 0.', "is not valid JSON"),
        ("[]", "contains a list instead of results"),
        ('{"val/receipt": "abc"}', "holds the text abc as val/receipt"),
    ],
)
def test_damaged_cell_is_a_finding_and_hides_no_other_one(toy_sweep, capsys, content, reason):
    folder = toy_sweep(unfinished={("psp", "mask", 2): ("failed", "crashed")})
    path = folder / "cell_3" / "results.json"
    path.write_text(content)
    damaged, seeds = audit(folder)
    assert damaged.startswith(f"cell 3 cannot be checked: {path} {reason}")
    assert seeds.startswith("set of seeds differs")
    print_table(folder, samples=200, form="md")
    shown = capsys.readouterr().out
    assert "| ga=none ld=mask | 0 | unreadable |" in shown and damaged[:60] in shown


def test_damaged_config_is_a_finding_too(toy_sweep):
    folder = toy_sweep()
    (folder / "cell_3" / "config.yaml").write_text("data: [")
    (damaged,) = audit(folder)
    assert "cell 3 cannot be checked" in damaged and "is not valid YAML" in damaged


def test_config_that_refers_to_code_stops_the_audit(toy_sweep):
    folder = toy_sweep()
    (folder / "cell_3" / "config.yaml").write_text("name: ${oc.env:HOME}")
    with pytest.raises(RefusedError, match="gald resolves nothing"):
        audit(folder)


def test_copy_of_a_factor_is_declared_and_a_longer_key_is_not():
    cells = [
        Audited(
            {"optimizer.lr": str(lr)}, {"optimizer": {"lr": lr, "lr_min": lo}, "log": {"lr": lr}}
        )
        for lr, lo in ((0.1, 1), (0.2, 2))
    ]
    assert [one.partition(" differs")[0] for one in audit_configs(cells)] == [
        "optimiser (optimizer.lr_min)"
    ]


def test_augment_as_a_factor_declares_what_it_adds():
    def cells(**crop):
        for name, extra in (("strong", {"blur": {"p": 0.2}}), ("standard", None)):
            transform = {"scale": [1, 2]} | ({"extra": extra} if extra else {})
            yield Audited({"augment": name}, {"data": {"train_transform": transform | crop}})
            crop = {name: [9, 9] for name in crop}

    assert audit_configs(cells()) == []
    found = audit_configs(cells(crop_size=[8, 8]))
    assert [one.partition(" differs")[0] for one in found] == [
        "crop (data.train_transform.crop_size)"
    ]


def test_groups_with_keys_elsewhere_are_known():
    packages = {}
    for path in CONF_DIR.rglob("*.yaml"):
        first, *_ = path.read_text().splitlines()
        group, package = path.parent.relative_to(CONF_DIR).as_posix(), first.split()[-1]
        if first.startswith("# @package ") and package != "_global_":
            keys = {f"{package}.{key}" for key in OmegaConf.load(path)}
            keys -= {group.replace("/", ".")}
            packages.setdefault(group, set()).update(keys)
    packages = {group: keys for group, keys in packages.items() if keys}
    assert packages == {group: {key} for group, key in ELSEWHERE.items()}


def test_command_exits_with_1_if_there_are_findings(toy_sweep, monkeypatch, capsys):
    def code(folder):
        monkeypatch.setattr(sys, "argv", ["gald", "sweep", "audit", str(folder)])
        try:
            cli.main()
        except SystemExit as end:
            return end.code
        return 0

    assert code(toy_sweep()) == 0
    assert capsys.readouterr().out == "only the declared factors differ\n"
    odd = toy_sweep(name="odd", unfinished={("psp", "mask", 2): ("failed", "crashed")})
    assert code(odd) == 1
    assert capsys.readouterr().out.startswith("warning: set of seeds differs")
