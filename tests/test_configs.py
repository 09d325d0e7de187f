"""Every key of every YAML is an argument of the signature of its `_target_`."""

import ast
import inspect
from pathlib import Path
from typing import Unpack, get_args, get_origin, get_type_hints

import pytest
import torch
import yaml
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from gald.config import CONF_DIR, compose
from gald.data.datamodule import Loading, SegmentationDataModule
from gald.model.segmentor import SegOutput
from gald.options.check import check_config
from gald.options.roots import Train

FILES = sorted(CONF_DIR.rglob("*.yaml"))
SOURCE = Path(__file__).parents[1] / "src" / "gald"
# Arguments that the code passes, because they depend on the data or the backbone.
PASSED = {
    "gald.model.segmentor.Segmentor": {
        "num_classes",
        "backbone",
        "neck",
        "ga",
        "ld",
        "head",
        "aux_head",
    },
    "gald.task.SegmentationTask": {
        *("model", "loss", "inference", "optimizer", "scheduler", "class_names", "provenance")
    },
}
PUBLIC_FOLDERS = ("model/ga", "model/ld", "model/head", "loss")


def targets(node, where):
    if isinstance(node, dict):
        if node.get("_target_", "???") != "???":  # the class of model/host=own is the user's
            yield node, where
        for key, value in node.items():
            yield from targets(value, f"{where}.{key}")


def signature_of(target):
    """The signature, with `**options: Unpack[Keys]` expanded to its keys."""
    signature = inspect.signature(target)
    parameters = []
    for parameter in signature.parameters.values():
        if get_origin(parameter.annotation) is Unpack:
            (keys,) = get_args(parameter.annotation)
            parameters += [
                inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None)
                for key in get_type_hints(keys)
            ]
        else:
            parameters.append(parameter)
    return signature.replace(parameters=parameters)


def named(path):
    return str(path.relative_to(CONF_DIR))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_key_is_an_argument_of_the_target(path):
    content = yaml.safe_load(path.read_text()) or {}
    for node, where in targets(content, named(path)):
        signature = signature_of(get_object(node["_target_"]))
        given = {k: None for k in node if not k.startswith("_") and k != "defaults"}
        try:
            bound = signature.bind_partial(**given)
        except TypeError as error:
            pytest.fail(f"{where}: {error}")
        if not node.get("_partial_"):
            required = {
                n
                for n, p in signature.parameters.items()
                if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            }
            passed = PASSED.get(node["_target_"], set())
            inherits = {"defaults"} & set(content)
            assert inherits or required <= set(bound.arguments) | passed, where


def test_keys_of_every_data_module_are_the_arguments_of_its_base():
    hints = get_type_hints(SegmentationDataModule.__init__)
    assert hints.pop("return") is type(None)
    assert get_type_hints(Loading) == hints


def test_key_outside_of_an_unpacked_dictionary_is_no_argument():
    signature = signature_of(get_object("gald.data.camvid.CamVidDataModule"))
    signature.bind_partial(root="", cache="none")
    with pytest.raises(TypeError, match="cash"):
        signature.bind_partial(cash="none")


@pytest.mark.parametrize("path", sorted((CONF_DIR / "data").glob("*.yaml")), ids=named)
def test_every_data_config_has_the_keys_of_loading(path):
    assert set(get_type_hints(Loading)) <= set(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_config_begins_with_a_comment(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ") and len(lines[0]) > 12


def test_every_public_class_has_a_config():
    mentioned = {
        node["_target_"].rpartition(".")[2]
        for path in FILES
        for node, _ in targets(yaml.safe_load(path.read_text()) or {}, "")
    }
    for folder in PUBLIC_FOLDERS:
        paths = sorted((SOURCE / folder).glob("[!_]*.py"))
        assert paths, folder
        for path in paths:
            for item in ast.parse(path.read_text()).body:
                if isinstance(item, ast.ClassDef) and not item.name.startswith("_"):
                    assert item.name in mentioned, f"{path.name}: {item.name}"


def options(group):
    return sorted(p.stem for p in (CONF_DIR / group).glob("*.yaml"))


GROUPS = ["data", "augment", "loss", "optimizer", "scheduler", "inference", "callbacks", "logger"]
GROUPS += [f"model/{slot}" for slot in ("neck", "head", "aux_head", "backbone")]


@pytest.mark.parametrize("row", range(max(len(options(group)) for group in GROUPS)))
def test_every_option_composes_and_its_interpolations_resolve(row, tmp_path):
    """Each row chooses one option of every group: as many compositions as the longest group has.

    The experiments are in options/test_check.py.
    """
    chosen = [f"{group}={options(group)[row % len(options(group))]}" for group in GROUPS]
    OmegaConf.resolve(compose("train", [*chosen, f"output_dir={tmp_path}"]))


@pytest.mark.integration
def test_what_the_tests_keep_of_a_composition_changes_nothing(
    configs_are_composed_once, monkeypatch
):
    cases = [
        ("train", ("experiment=demo", "optimizer.lr=3", "+width=1")),
        ("train", ("experiment=demo", "optimizer.lr=4", "seed=2")),
        ("train", ("callbacks=[ema,checkpoint]", "~model.ga.groups", "+model.ga.groups=2")),
        ("train", ("augment=[strong,weather]", "model/ga=psp", "hydra.job.chdir=true")),
        ("eval", ("ckpt_path=x",)),
    ]

    def composed():
        return [OmegaConf.to_yaml(compose(root, words, hydra=True)) for root, words in cases]

    first, kept = composed(), composed()
    for place, name, own in configs_are_composed_once:
        monkeypatch.setattr(place, name, own)
    assert first == kept == composed()


@pytest.mark.parametrize("group", ["loss", "inference"])
def test_options_build(group):
    for option in options(group):
        cfg = compose("train", [f"{group}={option}"])
        part = instantiate(cfg[group])
        if group == "loss":  # called with both heads' scores, as in training
            heads = SegOutput(torch.rand(2, 11, 6, 8), torch.rand(2, 11, 6, 8))
            mask = torch.randint(0, 11, (2, 24, 32), dtype=torch.uint8)
            assert part(heads, mask).ndim == 0, option


def test_presets_of_augmentation_join_and_only_standard_adds_nothing():
    def parts(*words):
        transform = compose("train", list(words)).data.train_transform
        return set(transform.get("extra", {}))

    assert parts() == parts("augment=standard") == set()
    strong, weather = (parts(f"augment={name}") for name in ("strong", "weather"))
    assert strong and weather and not strong & weather
    assert parts("augment=[strong,weather]") == strong | weather


def test_misspelt_option_of_an_augmentation_is_refused():
    cfg = compose("train", ["augment=strong", "+data.train_transform.extra.blur.sigma=3"])
    with pytest.raises(ValueError, match=r"blur\.sigma=3: GaussianBlur has no option sigma; did "):
        check_config(cfg, Train)


def test_all_trainers_leave_sampling_to_the_data_module():
    # Lightning's own sampler would pad the validation and evaluate some images twice.
    for option in options("trainer"):
        assert compose("train", [f"trainer={option}"]).trainer.use_distributed_sampler is False


# Options with a class of a library, or with a wrapper that several groups use as outermost class.
ELSEWHERE = {
    "augment/strong": "albumentations",
    "augment/weather": "albumentations",
    "callbacks/epochs": "pytorch_lightning.callbacks",
    "callbacks/learning_rate": "pytorch_lightning.callbacks",
    "hydra/launcher/gald": "hydra_plugins.gald_launcher",
    "hydra/launcher/probe": "hydra_plugins.gald_launcher",
    "hydra/sweeper/gald": "hydra_plugins.gald_launcher",
    "model/ga/cgnl_stride2": "gald.model.layers",
    "model/ga/none": "torch.nn",
    "optimizer/adamw": "torch.optim",
    "optimizer/adan": "timm.optim",
    "optimizer/adopt": "timm.optim",
    "optimizer/lion": "timm.optim",
    "optimizer/muon": "timm.optim",
    "optimizer/sgd": "torch.optim",
}


def modules(node, outermost=True):
    """Modules of the classes that a config builds: the outermost ones, or all."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"].rpartition(".")[0]
        if "_target_" not in node or not outermost:
            for value in node.values():
                yield from modules(value, outermost)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_code_of_a_group_is_at_the_path_of_its_config(path):
    """`model/ga=psp` is conf/model/ga/psp.yaml and gald/model/ga/psp.py."""
    option = path.relative_to(CONF_DIR).with_suffix("").as_posix()
    group = path.parent.relative_to(CONF_DIR).as_posix()
    # Root configs, overrides of other groups, and a class of the user's own.
    if group in (".", "experiment", "hydra") or option == "model/host/own":
        return
    content = yaml.safe_load(path.read_text()) or {}
    package = f"gald.{group.replace('/', '.')}"
    elsewhere = ELSEWHERE.get(option, package)
    for module in modules(content):
        assert module.startswith((package, elsewhere)), f"{option} builds a class of {module}"
    if (SOURCE / f"{option}.py").is_file():
        assert f"{package}.{path.stem}" in set(modules(content, outermost=False))


def test_options_with_code_elsewhere_exist():
    assert all((CONF_DIR / f"{option}.yaml").is_file() for option in ELSEWHERE)
