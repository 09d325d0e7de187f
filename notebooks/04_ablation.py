# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: keep_output
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   keep_output: true
# ---

# %% [markdown]
# # Read an ablation
#
# `gald train -m model/ga=none,psp model/ld=none,affinity seed=0,1,2 name=mine` trains every
# combination and writes a sweep folder. This notebook reads such a folder: which arms (choices of
# GA and LD) differ by more than noise, in which classes, in which images, and at what cost?
#
# **The numbers below are simulated.** Training twelve networks takes too long for a notebook, so a
# function draws confusion matrices from known rates and writes them in the format of a sweep. They
# are no evidence about GA or LD. They test whether the statistics find the known differences. Set
# `SWEEP` to your folder to read real runs instead.

# %%
import warnings

warnings.filterwarnings("ignore", message=".*(IProgress|ipywidgets)")  # of progress bars

import json
import tempfile
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Image, display

from gald.comparison.bootstrap import class_iou
from gald.comparison.figures import difference_chart
from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.images import ImageCounts
from gald.sweep.cells import declare
from gald.sweep.table.analysis import analyse
from gald.sweep.table.arms import find_baseline, read_sweep
from gald.sweep.table.columns import mean_and_deviation
from gald.sweep.table.figures import Point, class_chart, pareto_chart

# %% tags=["parameters"]
SWEEP = None  # your folder, for example "runs/mine"
SAMPLES = 2000

# %% [markdown]
# ## The simulation
#
# There are 60 images of 3000 pixels and four classes. The recall of a class depends on the arm, on
# the image (some are harder for all arms) and a little on the seed. The known differences are:
# `ga=psp` adds 3 points of recall to `building` and `road`; `ld=affinity` adds 6 points to `pole`
# and `person` for every GA; nothing else differs.

# %%
CLASSES = ("road", "building", "pole", "person")
GAIN = {"psp": np.array([3, 3, 0, 0]) / 100, "affinity": np.array([0, 0, 6, 6]) / 100, "none": 0}


def simulated_run(folder, ga, ld, seed, cost):
    """Write the files of an evaluated run: the counts of each image, and their scores."""
    image_draws = np.random.default_rng(0)  # the same images for every run
    pixels = image_draws.multinomial(3000, [0.5, 0.4, 0.04, 0.06], size=60)
    harder = image_draws.normal(0, 0.06, (60, 1))
    luck = np.random.default_rng((seed, len(ga), len(ld)))
    hit = np.array([0.9, 0.85, 0.5, 0.55]) + GAIN[ga] + GAIN[ld] - harder + luck.normal(0, 0.005, 4)
    hit = hit.clip(0.05, 0.99)
    counts, total = ImageCounts(), np.zeros((4, 4), np.int64)
    for image in range(60):
        rates = np.repeat((1 - hit[image])[:, None] / 3, 4, axis=1)
        np.fill_diagonal(rates, hit[image])
        matrix = np.stack([luck.multinomial(pixels[image, k], rates[k]) for k in range(4)])
        counts.add(f"image_{image:02}", "confusion", torch.from_numpy(matrix.ravel()))
        total += matrix
    folder.mkdir(parents=True)
    counts.save(folder / "images_val.npz")
    scores = ConfusionMatrix(4).scores(torch.from_numpy(total.ravel()), CLASSES)
    results = {f"val/{key}": value for key, value in scores.items()}
    results |= {"seed": seed, "cost/total/gmacs": cost}
    (folder / "results.json").write_text(json.dumps(results))


def simulated_sweep(folder):
    """Write a sweep of two GAs, two LDs and three seeds."""
    grid = list(product(("none", "psp"), ("none", "affinity"), (0, 1, 2)))
    words = [[f"model/ga={ga}", f"model/ld={ld}", f"seed={seed}"] for ga, ld, seed in grid]
    cells = declare(folder, "simulated", ["simulated"], words)
    for cell, (ga, ld, seed) in zip(cells, grid, strict=True):
        cost = 10 + 0.4 * (ga != "none") + 0.3 * (ld != "none")
        simulated_run(folder / cell.folder, ga, ld, seed, cost)
    return folder


folder = Path(SWEEP) if SWEEP else simulated_sweep(Path(tempfile.mkdtemp()) / "sweep")

# %% [markdown]
# ## Statistics
#
# `gald table FOLDER` prints all of this. The interval of a difference covers both sources of
# chance: the evaluated images and the trained seeds. With several comparisons at once, Holm's
# correction keeps the chance of any false alarm below 5%.

# %%
sweep = read_sweep(folder, "val")
base = find_baseline(sweep.arms, sweep.factors, None)
analysis = analyse(sweep, base, SAMPLES)
scores = {arm.label: [100 * r.results["val/miou"] for r in arm.runs.values()] for arm in sweep.arms}
for label, of_seeds in scores.items():
    mean, deviation, count = mean_and_deviation(np.array(of_seeds))
    print(f"{label:<22} mIoU {mean:5.2f}  sd {deviation:.2f}  seeds {count}")
print(f"\nagainst {sweep.arms[base].label}:")
for result in analysis.differences:
    estimate = result.estimate
    ends = f"[{100 * estimate.low:+.2f}, {100 * estimate.high:+.2f}]"
    print(
        f"{result.contrast.name:<22} {100 * estimate.difference:+.2f} {ends}  {result.conclusion}"
    )
print("\ninteraction (does the gain of LD depend on GA?):")
for result in analysis.interactions:
    estimate = result.estimate
    print(f"{result.contrast.name}  {100 * estimate.difference:+.2f}  {result.conclusion}")

# %% [markdown]
# ## Plots
#
# Every arm against the baseline. A filled marker is a difference beyond noise after Holm's
# correction, a hollow marker is not; bars are 95% intervals.

# %%
rows = {result.contrast.name: result.estimate for result in analysis.differences}
clear = [result.clear for result in analysis.differences]
display(Image(difference_chart(rows, clear, "mIoU", f"minus {sweep.arms[base].label} (points)")))

# %% [markdown]
# By class: a star marks a class with an interval that excludes 0. The known differences appear in
# their classes. A class without a known difference can still gain IoU, because fewer pixels of
# other classes are predicted as it.

# %%
names = next(iter(sweep.arms[base].runs.values())).class_names
display(Image(class_chart(list(rows), names, analysis.classes, sweep.arms[base].label)))

# %% [markdown]
# Score against cost: no other arm beats a filled one in both.

# %%
points = []
for arm in sweep.arms:
    runs = [run.results for run in arm.runs.values()]
    if all("cost/total/gmacs" in run for run in runs):
        mean, deviation, _ = mean_and_deviation(np.array(scores[arm.label]))
        points.append(Point(arm.label, runs[0]["cost/total/gmacs"], mean, deviation))
if points:
    display(Image(pareto_chart({"GMACs": points})))

# %% [markdown]
# ## Where the last arm helps
#
# Each image's mean IoU over its classes, averaged over seeds: the baseline's on the horizontal
# axis, the last arm's difference from it on the vertical axis. Above the line the arm is better.
# Inspect the printed images with `gald viz RUN_A RUN_B --image FILE`.

# %%
arm = sweep.arms[-1]


def image_ious(arm):
    """Mean IoU of each image (N,), averaged over seeds."""
    per_seed = [np.nanmean(class_iou(run.class_counts), 1) for run in arm.runs.values()]
    return 100 * np.mean(per_seed, 0)


one, other = image_ious(sweep.arms[base]), image_ious(arm)
figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained", dpi=70)
axis.plot(one, other - one, "o", color="black", mfc="none")
axis.axhline(0, color="black", linewidth=0.8)
axis.set_xlabel(f"mean IoU of an image, {sweep.arms[base].label} (%)")
axis.set_ylabel(f"{arm.label}\nminus baseline (points)")
axis.grid(color="0.85")
plt.show()
images = next(iter(arm.runs.values())).images.names
order = np.argsort(other - one)
print(f"better in {np.mean(other > one):.0%} of {len(one)} images")
print("most gained: ", ", ".join(f"{images[i]} {other[i] - one[i]:+.1f}" for i in order[::-1][:4]))
print("least gained:", ", ".join(f"{images[i]} {other[i] - one[i]:+.1f}" for i in order[:4]))
