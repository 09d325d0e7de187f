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
# # What local distribution does
#
# Two networks differ in one option. Both have the same global aggregation (GA). One has no local
# distribution (LD); the other has `model/ld=affinity` with a map A: A = 1 takes the global
# context, A = 0 keeps the local feature. Both train briefly on the same synthetic crops. Then the
# notebook inspects query pixels, boundaries and small objects.
#
# This is one seed and a short training. The figures describe these two networks; for a conclusion
# about LD, train several seeds and use the statistics of `04_ablation`.

# %%
import warnings

warnings.filterwarnings("ignore", message=".*(IProgress|ipywidgets)")  # of progress bars

import io
import os
import tempfile

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from hydra.utils import instantiate
from IPython.display import Image, display

import gald
from gald.config import compose
from gald.training.train import train
from gald.viz import figures
from gald.viz.network_view import inspect_network

os.chdir(tempfile.mkdtemp())

# %% tags=["parameters"]
EPOCHS = 2
TRAIN_IMAGES = 96
VAL_IMAGES = 16

# %% [markdown]
# ## Train both

# %%
ARMS = {"GA only": "none", "GA + LD": "affinity"}
for ld in ARMS.values():
    overrides = [
        "experiment=demo",
        "model/ga=nonlocal",
        f"model/ld={ld}",
        "model.channels=32",
        f"trainer.max_epochs={EPOCHS}",
        f"scheduler.warmup_steps={EPOCHS * TRAIN_IMAGES // 8 // 4}",  # a quarter of all steps
        f"data.train_count={TRAIN_IMAGES}",
        f"data.val_count={VAL_IMAGES}",
        "data.num_workers=0",
        "metrics=miou",
        "test=false",
        "logger=csv",
        f"output_dir=runs/{ld}",
    ]
    cfg = compose("train", overrides)
    results = train(cfg)

networks = {name: gald.load(f"runs/{ld}") for name, ld in ARMS.items()}
val_images = instantiate(cfg.data).make_dataset("val")

# %% [markdown]
# ## The map of one image
#
# `gald.record` records the inputs and outputs of GA and LD during a forward pass.
# `inspect_network` does it for an image and also predicts without LD. On the command line, `gald
# viz RUN --image FILE` draws the same figures.

# %%
image = val_images[3]["image"]
with gald.record(networks["GA + LD"]) as maps, torch.no_grad():
    networks["GA + LD"](image[None])
print(maps)

# %%
views = {
    name: inspect_network(network, image, [(64, 80), (20, 40)])
    for name, network in networks.items()
}


def show(figure):
    """Display a figure at a size that keeps the notebook small."""
    file = io.BytesIO()
    figure.savefig(file, dpi=70, format="jpg")
    display(Image(file.getvalue()))


show(figures.ld_figure(views["GA + LD"]))

# %% [markdown]
# Note the range of the colour bar: the map starts at 0.5 and moves little in such a short
# training. Each group of channels has its own map:

# %%
show(figures.groups_figure(views["GA + LD"]))

# %% [markdown]
# ## Query pixels
#
# The influence of every position on GA's output at the marked pixel: the sum of |d out / d in|
# over channels. It exists for every GA, with or without attention weights.

# %%
show(figures.attention_figure(views["GA + LD"]))

# %% [markdown]
# ## The prediction with and without LD

# %%
show(figures.prediction_figure(views["GA + LD"]))

# %% [markdown]
# ## Boundaries
#
# Over all validation images. Left: the mean of A by the distance to the nearest ground-truth
# boundary; the bar is the standard deviation over pixels. Right: each network's share of correct
# pixels at that distance.

# %%
EDGES = [0, 1, 2, 4, 8, 16, np.inf]
BINS = ["<1", "1-2", "2-4", "4-8", "8-16", ">16"]
SIZES = [0, 1e-3, 1e-2, 1e-1, 1]
SIZE_NAMES = ["<0.1%", "0.1-1%", "1-10%", ">10%"]


def to_boundary(mask):
    """Distance of every pixel to the nearest class boundary, in pixels."""
    edge = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        change = np.diff(mask, axis=axis) != 0
        edge |= np.pad(change, [(0, int(axis == 0)), (0, int(axis == 1))])
        edge |= np.pad(change, [(int(axis == 0), 0), (int(axis == 1), 0)])
    return cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 5)


def object_sizes(mask):
    """Size of the connected region around every pixel, as a share of the image."""
    sizes = np.zeros(mask.shape)
    for k in np.unique(mask):
        count, regions, stats, _ = cv2.connectedComponentsWithStats((mask == k).astype(np.uint8))
        for region in range(1, count):
            sizes[regions == region] = stats[region, cv2.CC_STAT_AREA] / mask.size
    return sizes


pixels = {"distance": [], "size": [], "A": [], "GA only": [], "GA + LD": []}
for index in range(len(val_images)):
    item = val_images[index]
    mask = item["mask"].numpy()
    known = mask != 255
    for name, network in networks.items():
        prediction = network.predict(item["image"], confidence=False, ld_map=name == "GA + LD")
        pixels[name].append((prediction.labels == mask)[known])
    pixels["A"].append(prediction.ld_map[known])
    pixels["distance"].append(to_boundary(mask)[known])
    pixels["size"].append(object_sizes(mask)[known])
pixels = {name: np.concatenate(parts) for name, parts in pixels.items()}


def by(quantity, edges, names, along):
    """Draw A and the share of correct pixels in bins of a quantity, without empty bins."""
    bins = np.digitize(pixels[quantity], edges) - 1
    kept = [b for b in range(len(names)) if (bins == b).any()]
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", dpi=70)
    means = [pixels["A"][bins == b].mean() for b in kept]
    spread = [pixels["A"][bins == b].std() for b in kept]
    left.errorbar(range(len(kept)), means, spread, fmt="o", color="black", capsize=3)
    left.set_ylabel("A: share of the context")
    for name, fill in (("GA only", "white"), ("GA + LD", "black")):
        shares = [100 * pixels[name][bins == b].mean() for b in kept]
        right.plot(range(len(kept)), shares, "o", color="black", mfc=fill, label=name)
    right.set_ylabel("% of correct pixels")
    right.legend()
    for axis in (left, right):
        axis.set_xticks(range(len(kept)), [names[b] for b in kept])
        axis.set_xlabel(along)
        axis.grid(axis="y", color="0.85")
    plt.show()


by("distance", EDGES, BINS, "pixels to the nearest boundary")

# %% [markdown]
# If LD sharpens boundaries, A near boundaries differs from A elsewhere, and the filled markers lie
# above the hollow ones at the left of the right panel. The second without the first can be the
# luck of one seed.
#
# ## Small objects
#
# The same by the size of the region of each pixel, as a share of the image.

# %%
by("size", SIZES, SIZE_NAMES, "size of the region, share of the image")

# %% [markdown]
# ## Both networks side by side

# %%
show(figures.side_by_side(list(views.values()), list(views), common_scale=False))
