"""wandb workspace of a sweep: curves by factor, bars by class, boundary scores, images."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gald.install.extras import require
from gald.run.results import read_results
from gald.sweep.cells import Sweep
from gald.sweep.run_labels import factor_key

STEP = "trainer/global_step"
FINE = ("boundary_f", "boundary_iou", "trimap", "size", "thin")  # details that the mIoU hides


def build_workspace(folder: Path, entity: str, project: str) -> Any:
    """Build a `wandb_workspaces` workspace for the runs of one sweep, averaged over seeds.

    Args:
        folder: the sweep; its factors and the scores of a finished cell define the panels.
        entity: user or team.
        project: wandb project of the runs.

    Raises:
        ValueError: no cell is done, or wandb-workspaces is not installed.
        FileNotFoundError: the folder contains no sweep.
    """
    require("gald wandb dashboard", "wandb")
    sweep = Sweep.load(folder)
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces import expr

    arm = panels.Config("arm")

    def curve(title: str, metric: str, key: str) -> panels.LinePlot:
        return panels.LinePlot(
            title=title,
            x=STEP,
            y=[metric],
            groupby=panels.Config(key),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )

    def bars(title: str, metrics: Iterable[str]) -> panels.BarPlot:
        return panels.BarPlot(
            title=title,
            metrics=[panels.SummaryMetric(f"best/{name}") for name in metrics],
            groupby=arm,
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )

    scores = _scores(folder, sweep)
    factors = [key for key in sweep.factors if key != "seed"]
    by_factor = [
        curve(f"val/miou by {key}", "val/miou", f"factor.{factor_key(key)}") for key in factors
    ]
    classes = [name for name in scores if name.startswith(("val/iou/", "test/iou/"))]
    of_classes = {name.split("/", 2)[2] for name in classes}
    fine = [
        name
        for name in scores
        if name.split("/")[1] in FINE and not any(name.endswith(f"/{k}") for k in of_classes)
    ]
    sections: dict[str, list[Any]] = {
        "mIoU": [
            *(bars(f"{name}, best epoch", [name]) for name in scores if name.endswith("/miou")),
            curve("val/miou by arm", "val/miou", "arm"),
            *by_factor,
            curve("train/loss by arm", "train/loss", "arm"),
        ],
        "Classes": [bars(name, [name]) for name in classes],
        "Boundaries, thin classes, small objects": [bars(name, [name]) for name in fine],
        "Images": [
            panels.MediaBrowser(title=key, media_keys=[key], num_columns=2)
            for key in ("val/panels", "val/masks")
        ],
    }
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"gald {sweep.name}",
        sections=[
            workspaces.Section(name=name, panels=panels_of_section, is_open=True)
            for name, panels_of_section in sections.items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis=STEP, max_runs=100),
        runset_settings=workspaces.RunsetSettings(
            filters=expr.And(expr.Metric("Group") == sweep.name), groupby=[expr.Config("arm")]
        ),
    )


def spec(workspace: Any) -> str:
    """Return the workspace as the JSON for wandb's server."""
    view = workspace._to_model()  # save() sends this; there is no public method for it
    return json.dumps(
        {
            "entityName": view.entity,
            "projectName": view.project,
            "displayName": view.display_name,
            "type": "project-view",
            "spec": view.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        },
        indent=2,
    )


def _scores(folder: Path, sweep: Sweep) -> list[str]:
    for cell in sweep.cells:
        path = folder / cell.folder / "results.json"
        if path.is_file():
            results = read_results(path)
            return [name for name in results if name.startswith(("val/", "test/"))]
    raise ValueError(f"no cell of {folder} is done, so there are no scores; run the sweep first")
