"""Write docs/leaderboard.md from the published tables: python docs/leaderboard.py."""

import csv
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent
PAGE = DOCS / "leaderboard.md"


class Study(NamedTuple):
    """A sweep with a published table.

    Attributes:
        folder: folder below docs.
        data: the dataset.
        trains: what is trained, and how large the evaluated images are.
    """

    folder: str
    data: str
    trains: str


STUDIES = (
    Study("confirm_camvid", "CamVid", "all, 8 epochs; 360x480"),
    Study("confirm_fine_camvid", "CamVid", "all, 8 epochs, stride 4 too; 360x480"),
    Study("ablation_camvid", "CamVid", "all, 8 epochs, head with a skip; 360x480"),
    Study("screen_ld_camvid", "CamVid", "head on frozen features; 180x240"),
    Study("screen_camvid", "CamVid", "head on frozen features; 180x240"),
    Study("screen_ga_camvid", "CamVid", "head on frozen features; 180x240"),
    Study("screen_fine_camvid", "CamVid", "head on frozen features, stride 4 too; 180x240"),
    Study(
        "screen_fine_labelmefacade",
        "LabelMeFacade",
        "head on frozen features, stride 4 too; 180x240",
    ),
    Study("screen_skip_camvid", "CamVid", "head with a skip on frozen features; 180x240"),
    Study("dose_camvid", "CamVid", "head on frozen features; 180x240"),
    Study("screen_labelmefacade", "LabelMeFacade", "head on frozen features; 180x240"),
    Study("screen_crackforest", "CrackForest", "head on frozen features, stride 4 too; 320x480"),
)
HEAD = """# Leaderboard

Every arm of every published sweep, from its `table.csv`. On the site, a click on a heading sorts
the table. Scores compare within one study only: studies differ in data, in the size of the images,
or in what trains. The difference is that from the baseline of the study. Its interval covers seeds
and images, but not the number of arms; the reports correct for that. An arm marked † reads the
ground truth.

| arm | data | trains | seeds | mIoU % | difference | 95% interval | boundary F % | GMACs | study |
|---|---|---|---:|---:|---:|---:|---:|---:|---|
"""


def rows_of(study: Study) -> list[str]:
    """Return the lines of a study, the best mIoU first."""
    with (DOCS / study.folder / "table.csv").open(newline="") as file:
        arms = [arm for arm in csv.DictReader(file) if arm["mIoU"]]
    arms.sort(key=lambda arm: -float(arm["mIoU"]))
    return [_row(study, arm) for arm in arms]


def page() -> str:
    """Return the whole page."""
    return HEAD + "".join(f"{row}\n" for study in STUDIES for row in rows_of(study))


def _row(study: Study, arm: dict[str, str]) -> str:
    name = arm["arm"] + (" †" if "oracle" in arm["arm"] else "")
    is_baseline = "baseline" in (arm.get("conclusion"), arm.get("verdict"))
    between = "baseline" if is_baseline else f"{_signed(arm['low'])} to {_signed(arm['high'])}"
    cells = [
        *(name, study.data, study.trains, str(len(arm["seeds"].split()))),
        _score(arm, "mIoU"),
        "" if is_baseline else _signed(arm["difference"]),
        between if is_baseline or arm["low"] else "",
        _score(arm, "boundary F (3 px)"),
        f"{float(cost):.3f}" if (cost := arm.get("GMACs")) else "",
        f"[{study.folder}]({study.folder}/report.md)",
    ]
    return f"| {' | '.join(cells)} |"


def _score(arm: dict[str, str], key: str) -> str:
    spread = f" ± {float(arm[f'{key} sd']):.2f}" if arm[f"{key} sd"] else ""
    return f"{float(arm[key]):.2f}{spread}"


def _signed(text: str) -> str:
    return f"{float(text):+.2f}" if text else ""


if __name__ == "__main__":
    PAGE.write_text(page())
