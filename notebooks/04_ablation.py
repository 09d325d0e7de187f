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
# `gald train -m experiment=ablation_camvid` trains every combination of three GAs, three LDs and
# three seeds on CamVid, and `gald table` compares them. Two questions follow: which arms (choices
# of GA and LD) differ by more than noise, and where in the images? The first part reads the
# published table of [the real 27 runs](../docs/results.md); the second compares two networks of
# the zoo, image by image.

# %%
import warnings

warnings.filterwarnings("ignore", message=".*(IProgress|ipywidgets)")  # of progress bars

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

import gald
from gald.comparison.bootstrap import (
    Difference,
    class_iou,
    paired_bootstrap,
    true_class_iou,
    true_mean_iou,
)
from gald.comparison.figures import difference_chart
from gald.comparison.runs import read_pair

# %% tags=["parameters"]
REPORT = Path(gald.__file__).parents[2] / "docs" / "ablation_camvid"  # or of your gald table --to
PAIR = ("camvid_lite0_without_ld", "camvid_lite0")  # or two run folders
SAMPLES = 2000

# %% [markdown]
# ## Seeds first
#
# Every dot is one training. Runs of one seed share crops and initial weights of the parts that
# they have in common, so the lines connect them. An effect that is real moves all three lines;
# here the lines cross, and seeds differ by as much as arms.

# %%
with (REPORT / "runs.csv").open() as file:
    runs = list(csv.DictReader(file))
arms = list(dict.fromkeys(run["arm"] for run in runs))
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained", dpi=70)
for seed, marker in zip(sorted({run["seed"] for run in runs}), "os^", strict=False):
    score = {run["arm"]: float(run["mIoU"]) for run in runs if run["seed"] == seed}
    axis.plot([score.get(arm, np.nan) for arm in arms], f"-{marker}", lw=0.8, label=f"seed {seed}")
names = [arm.replace("ga=", "").replace(" ld=", "\n") for arm in arms]
axis.set_xticks(range(len(arms)), names, fontsize=8)
axis.set_xlabel("GA, and LD below it")
axis.set_ylabel("test mIoU (%)")
axis.grid(color="0.9")
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Differences with their intervals
#
# Each arm minus the baseline. The intervals cover both sources of chance, images and seeds. A
# filled marker would be a difference beyond noise after Holm's correction for the number of arms;
# there is none.

# %%
with (REPORT / "table.csv").open() as file:
    table = [row for row in csv.DictReader(file) if row["difference"]]


def estimate(row):
    """A row of the table as a difference of scores in [0, 1]."""
    value, low, high, p = (float(row[key]) for key in ("difference", "low", "high", "p"))
    score = float(row["mIoU"]) / 100
    ends = (value / 100, low / 100, high / 100)
    parts = (score - ends[0], score, *ends, np.nan, np.nan, p, np.nan)
    return Difference(*map(np.asarray, parts))


rows = {row["arm"]: estimate(row) for row in table}
clear = [float(row["p_holm"]) < 0.05 for row in table]
display(Image(difference_chart(rows, clear, "mIoU", "minus ga=none ld=none (points)")))

# %% [markdown]
# ## The claim's own contrast
#
# The claim is about LD *given a GA*: what does LD add to psp and to nonlocal? The mean over both
# GAs and three seeds of the differences within a seed:

# %%
score = {(run["arm"], run["seed"]): float(run["mIoU"]) for run in runs}
for ld in ("mask", "affinity"):
    gains = [
        score[f"ga={ga} ld={ld}", seed] - score[f"ga={ga} ld=none", seed]
        for ga in ("psp", "nonlocal")
        for seed in sorted({run["seed"] for run in runs})
    ]
    each = ", ".join(f"{gain:+.2f}" for gain in gains)
    print(f"{ld:<9} {np.mean(gains):+.2f} points of mIoU; each pair: {each}")

# %% [markdown]
# ## Two networks, image by image
#
# The zoo has two networks of one recipe on CamVid, without LD and with it. Their counts of every
# test image are stored, so this needs neither the images nor a GPU. One training a side says which
# of *these two networks* is better, not which module.

# %%
_, (a, b) = read_pair(*map(Path, PAIR), "test")
both = a.class_counts, b.class_counts
by_class = paired_bootstrap(*both, true_class_iou, SAMPLES)
ious = {name: by_class.of(place) for place, name in enumerate(a.class_names)}
sure = [bool(row.low > 0 or row.high < 0) for row in ious.values()]
label = f"{PAIR[1]} minus {PAIR[0]} (points)"
display(Image(difference_chart(ious, sure, "IoU by class", label)))
miou = paired_bootstrap(*both, true_mean_iou, SAMPLES)
ends = f"{100 * miou.low:+.2f} to {100 * miou.high:+.2f}"
print(f"mIoU {100 * miou.a:.2f} and {100 * miou.b:.2f}: {100 * miou.difference:+.2f} ({ends})")

# %% [markdown]
# Each dot is an image: its mean IoU with the first network, and what the second changes. Inspect
# an image with `gald viz camvid_lite0_without_ld camvid_lite0 --image FILE`.

# %%
one, other = (100 * np.nanmean(class_iou(run.class_counts), 1) for run in (a, b))
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained", dpi=70)
axis.plot(one, other - one, "o", color="black", mfc="none", ms=4)
axis.axhline(0, color="black", linewidth=0.8)
axis.set_xlabel(f"mean IoU of an image, {PAIR[0]} (%)")
axis.set_ylabel(f"{PAIR[1]}\nminus it (points)")
axis.grid(color="0.9")
plt.show()
images, order = a.images.names, np.argsort(other - one)
print(f"better in {np.mean(other > one):.0%} of {len(one)} images")
print("most gained: ", ", ".join(f"{images[i]} {other[i] - one[i]:+.1f}" for i in order[::-1][:4]))
print("least gained:", ", ".join(f"{images[i]} {other[i] - one[i]:+.1f}" for i in order[:4]))
