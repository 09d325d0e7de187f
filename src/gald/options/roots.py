"""Root keys of the commands that compose a config; each key is at the top of conf/NAME.yaml."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypedDict

from gald.options.ranges import Count, Length, Seed, Size, Text

FROM_CHECKPOINT = ("data", "inference")  # parts of gald eval, unless the command line has them


class Part:
    """Config of something that is built: a mapping with a `_target_`."""


Named = Mapping[str, Part | None]  # parts by name; null leaves one out


class _Run(TypedDict):
    name: Text
    seed: Seed
    output_dir: Text
    trainer: Part


class _Lists(TypedDict, total=False):
    callbacks: Named | None
    logger: Named | None
    tags: Sequence[str]
    report: bool


class Train(_Run, _Lists):
    """Keys of conf/train.yaml."""

    ckpt_path: str | None
    init_from: str | None
    init_from_strict: bool
    test: bool
    task: Part
    data: Part
    model: Part
    loss: Part
    optimizer: Part
    scheduler: Part
    inference: Part
    metrics: Annotated[Named, Length(1)]


class Probe(TypedDict):
    """Keys of conf/probe.yaml."""

    name: Text
    seed: Seed
    output_dir: Text
    data: Part
    model: Part
    loss: Part
    optimizer: Part
    scheduler: Part
    metrics: Annotated[Named, Length(1)]
    probe: Part
    device: str


class _Parts(TypedDict, total=False):
    data: Part | None
    inference: Part | None
    metrics: Named | None
    trust: str | Sequence[str] | None


class Eval(_Run, _Parts):
    """Keys of conf/eval.yaml."""

    ckpt_path: str
    split: Literal["val", "test"]


class Profile(Train):
    """Keys of conf/profile.yaml."""

    size: Size
    batch_size: Count
    num_classes: Count | None
    device: str
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    rounds: Count


SWEPT = {"train": Train, "probe": Probe}  # commands with cells, by the name of their config
