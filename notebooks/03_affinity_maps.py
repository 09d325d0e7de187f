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
# Two networks of the zoo differ in one option. Both have the same global aggregation (GA). One has
# no local distribution (LD); the other has `model/ld=mask`, which scales the context at each
# position by 1 + M, with a map M from 0.5 to 1. Both were trained on the same synthetic crops, by
# `gald train experiment=demo`, without and with `model/ld=none`. The notebook inspects query
# pixels, boundaries and small objects.
#
# This is one seed. The figures describe these two networks; for a conclusion about LD, train
# several seeds and use the statistics of `04_ablation`. Give your own runs as `NETWORKS`, and your
# own images as `val_images`, to inspect them.

# %%
import warnings

warnings.filterwarnings("ignore", message=".*(IProgress|ipywidgets)")  # of progress bars

import io

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Image, display

import gald
from gald.data.synthetic import SyntheticStreets
from gald.viz import figures
from gald.viz.network_view import inspect_network

# %% tags=["parameters"]
NETWORKS = {"GA only": "demo_without_ld", "GA + LD": "demo"}
VAL_IMAGES = 64

# %%
networks = {name: gald.load(network) for name, network in NETWORKS.items()}
val_images = SyntheticStreets("val", VAL_IMAGES)

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
# The figure has the mean over channels; note the range of its colour bar. The map is coarse: a cell
# of it is 32 pixels wide. Each group of channels has its own map:

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
# Over all validation images. Left: the mean of M by the distance to the nearest ground-truth
# boundary; the bar is the standard deviation over pixels. Middle: each network's share of correct
# pixels at that distance. Right: their difference.

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


pixels = {"distance": [], "size": [], "M": [], "GA only": [], "GA + LD": []}
for index in range(len(val_images)):
    item = val_images[index]
    mask = item["mask"].numpy()
    known = mask != 255
    for name, network in networks.items():
        prediction = network.predict(item["image"], confidence=False, ld_map=name == "GA + LD")
        pixels[name].append((prediction.labels == mask)[known])
    pixels["M"].append(prediction.ld_map[known])
    pixels["distance"].append(to_boundary(mask)[known])
    pixels["size"].append(object_sizes(mask)[known])
pixels = {name: np.concatenate(parts) for name, parts in pixels.items()}


def by(quantity, edges, names, along):
    """Draw M and the share of correct pixels in bins of a quantity, without empty bins."""
    bins = np.digitize(pixels[quantity], edges) - 1
    kept = [b for b in range(len(names)) if (bins == b).any()]
    _, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained", dpi=70)
    means = [pixels["M"][bins == b].mean() for b in kept]
    spread = [pixels["M"][bins == b].std() for b in kept]
    left.errorbar(range(len(kept)), means, spread, fmt="o", color="black", capsize=3)
    left.set_ylabel("M: the context is scaled by 1 + M")
    shares = {
        name: np.array([100 * pixels[name][bins == b].mean() for b in kept])
        for name in ("GA only", "GA + LD")
    }
    middle.plot(range(len(kept)), shares["GA only"], "o", color="black", mfc="none", ms=10)
    middle.plot(range(len(kept)), shares["GA + LD"], "o", color="black", ms=5)
    middle.set_ylabel("% of correct pixels (ring: GA only)")
    right.plot(range(len(kept)), shares["GA + LD"] - shares["GA only"], "o", color="black")
    right.axhline(0, color="black", linewidth=0.8)
    right.set_ylabel("GA + LD minus GA only (points)")
    for axis in (left, middle, right):
        axis.set_xticks(range(len(kept)), [names[b] for b in kept])
        axis.set_xlabel(along)
        axis.grid(axis="y", color="0.85")
    plt.show()


by("distance", EDGES, BINS, "pixels to the nearest boundary")

# %% [markdown]
# If LD sharpens boundaries, M near boundaries differs from M elsewhere, and the points at the left
# of the right panel lie above 0. The second without the first can be the luck of one seed.
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
