"""Every key of conf/ has a type and a range, and a value outside of them is refused by its key."""

import copy
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from gald.config import CONF_DIR, compose
from gald.options.check import check_config, check_part
from gald.options.roots import Eval, Probe, Profile, Train
from gald.options.values import bad_place

ROOTS = {"train": Train, "eval": Eval, "profile": Profile, "probe": Probe}
GROUPS = (
    *("data", "augment", "loss", "optimizer", "scheduler", "inference", "metrics", "trainer"),
    *(f"model/{slot}" for slot in ("backbone", "neck", "ga", "ld", "head", "aux_head")),
)
# Keys whose numbers have no upper or lower bound, or whose texts are free: names and paths.
FREE_TEXTS = {
    *("name", "output_dir", "ckpt_path", "init_from", "root", "cache_dir", "train_split", "path"),
    *("dirpath", "monitor", "filename", "project", "group", "experiment", "tracking_uri", "device"),
    *("classes", "image_suffix", "mask_suffix", "images", "masks", "lists", "weights", "groups"),
    *("decoder", "encoder", "network", "at"),  # of a host, which names its choices
    *("strategy", "default_root_dir", "devices", "trust"),  # strategy, devices: see gald.trainer
    "precision",  # of the trainer, which refuses it with the choices
}
FREE_NUMBERS = {"index"}  # of an auxiliary head: negative values count from the end
FREE = (("model", "host", "config"), ("model", "host", "options"))  # of another library
OR_A_NUMBER = {"rotate", "sigma_limit", "gamma_limit"}  # instead of a range
WRONG = {"a": 1}  # neither a number, a text, a list nor a part


def options(group):
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def composed():
    """Pairs of a label, and the root and overrides of a config."""
    for group in GROUPS:
        for option in options(group):
            yield f"{group}={option}", ("train", [f"{group}={option}"])
    for option in options("model/host"):
        if option != "own":  # its class is the user's
            words = ["model=plugged", f"model/host={option}", "model.channels=16", "model.at=x"]
            yield f"model/host={option}", ("train", words)
    yield "model=plugged", ("train", ["model=plugged", "model.channels=16", "model.at=x"])
    for group in ("callbacks", "logger"):
        yield group, ("train", [f"{group}=[{','.join(options(group))}]"])
    yield from ((root, (root, [] if root == "probe" else ["ckpt_path=x"])) for root in ROOTS)


CASES = dict(composed())


def leaves(node, place=()):
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, (*place, key))
    elif place[-1] not in ("_target_", "_partial_") and place[:3] not in FREE:
        yield place, node


def plain(case):
    root, overrides = CASES[case]
    cfg = compose(root, [*overrides, "output_dir=x"])
    if root == "eval":
        return root, OmegaConf.to_container(cfg)
    return root, OmegaConf.to_container(cfg, resolve=True)


def accepted(root, content, place, value):
    """Whether a value passes the check; a refusal must name the key."""
    content = copy.deepcopy(content)
    nodes = [content]
    for key in place[:-1]:
        nodes.append(nodes[-1][key])
    nodes[-1][place[-1]] = value
    inner = [number for number, node in enumerate(nodes) if "_target_" in node]
    try:
        if inner:  # its own part alone, which takes less time
            check_part(nodes[inner[-1]], ".".join(place[: inner[-1]]))
        else:
            check_config(OmegaConf.create(content), ROOTS[root])
    except ValueError as error:
        assert ".".join(place) in str(error), (place, value, str(error))
        return False
    return True


def relevant(case, content):
    """The keys of the chosen option; the other parts belong to other cases."""
    for place, value in leaves(content):
        if case.startswith("augment="):
            if place[:3] == ("data", "train_transform", "extra"):
                yield place, value
            continue
        within = "/".join(place[:2]).startswith(case.partition("=")[0]) or "/" not in case
        top = place[0] == case.partition("=")[0]
        if (within if "/" in case else top) or (case in ROOTS and len(place) == 1):
            yield place, value


@pytest.mark.one_in(4)
@pytest.mark.parametrize("case", CASES)
def test_every_key_refuses_a_wrong_type_and_a_value_out_of_range(case):
    root, content = plain(case)
    check_config(OmegaConf.create(content), ROOTS[root])
    seen = list(relevant(case, content))
    assert seen or case.endswith("none") or case in ("callbacks", "augment=standard")
    for place, value in seen:
        key = place[-1]
        if case != "metrics=cityscapes":  # its categories have names of the user's choice
            assert not accepted(root, content, place, WRONG), place
        if isinstance(value, bool):
            assert not accepted(root, content, place, 5) or key in ("frozen", "fast_dev_run")
            assert not accepted(root, content, place, "maybe")
        elif isinstance(value, int | float):
            for bad in ("abc", float("nan"), float("inf"), [], None if key == "lr" else "x y"):
                assert not accepted(root, content, place, bad) or key in FREE_TEXTS, (place, bad)
            outside = [accepted(root, content, place, n) for n in (-(10**12), 10**12)]
            assert not all(outside) or key in FREE_NUMBERS, place
        elif isinstance(value, list):
            for bad in (5, "abc", [WRONG]):
                may = bad == 5 and key in OR_A_NUMBER
                assert may or not accepted(root, content, place, bad), (place, bad)
        elif isinstance(value, str):
            assert key in FREE_TEXTS or not accepted(root, content, place, "no such"), place
            assert not accepted(root, content, place, [[5]]), place


def test_every_file_of_conf_is_in_a_case():
    listed = {Path(name.replace("=", "/")).with_suffix(".yaml") for name in CASES}
    for path in CONF_DIR.rglob("*.yaml"):
        name = path.relative_to(CONF_DIR)
        other = name.parts[0] in (
            "experiment",
            "hydra",
            "callbacks",
            "logger",
            "debug",
            "hparams_search",
        )
        assert other or name in listed or name.stem in ("gald", "own") or len(name.parts) == 1, name


@pytest.mark.parametrize("path", sorted((CONF_DIR / "experiment").glob("*.yaml")), ids=str)
def test_every_experiment_passes(path):
    assert yaml.safe_load(path.read_text())
    root = "probe" if "gald probe" in path.read_text() else "train"
    cfg = compose(root, [f"experiment={path.stem}", "output_dir=x"])
    check_config(cfg, ROOTS[root])
    OmegaConf.resolve(cfg)


def test_a_key_that_others_refer_to_is_accepted():
    check_config(compose("train", ["+width=32", "model.channels=${width}"]), Train)
    with pytest.raises(ValueError, match="width=32: nothing reads width"):
        check_config(compose("train", ["+width=32"]), Train)


def test_an_experiment_without_its_auxiliary_head_composes():
    words = ["experiment=dualseg_official", "model/aux_head=none"]
    cfg = compose("train", words)
    check_config(cfg, Train)
    assert cfg.model.aux_head is None


def test_no_learning_rate_at_all_is_fine():
    check_config(compose("train", ["optimizer.lr=0"]), Train)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, "1"])
def test_what_no_float_holds_is_no_number(value):
    assert bad_place(value, float) is not None and bad_place(10, float) is None
