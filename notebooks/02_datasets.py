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
# # Look at any dataset
#
# `DATA` is the word after `data=` on the command line. Synthetic streets need no files; for others
# say where they lie, as `DATA = ["data=camvid", "data.root=/path/to/CamVid"]`. Nothing below knows
# which dataset it is.

# %%
import warnings

warnings.filterwarnings("ignore", message=".*(IProgress|ipywidgets)")  # of progress bars

import tempfile

import cv2
import matplotlib.pyplot as plt
import numpy as np
from hydra.utils import instantiate
from matplotlib.patches import Patch
from matplotlib_inline.backend_inline import set_matplotlib_formats

from gald.config import compose
from gald.data.loading.class_counts import pixel_counts

set_matplotlib_formats("jpeg")  # pictures that keep the notebook small

# %% tags=["parameters"]
DATA = ["data=synthetic"]
SCENES = 4

# %%
scratch = tempfile.mkdtemp()  # for what is counted once and kept
words = [*DATA, f"data.cache_dir={scratch}", "data.num_workers=0", "output_dir=unused"]
cfg = compose("train", words)
data = instantiate(cfg.data)
splits = ["train", "val"] + (["test"] if data.has_test else [])
scenes = {split: data.make_dataset(split) for split in splits}
for split, found in scenes.items():
    print(f"{split:<6}{len(found):>7} scenes, the first: {found.image_name(0)}")

# %% [markdown]
# ## Samples
#
# Images above, labels below; black is void, which neither the loss nor a score counts.

# %%
colours = np.zeros((256, 3), np.uint8)
colours[: len(data.palette)] = data.palette


def legend(figure, present):
    """Name the colours of the classes that are in the picture."""
    handles = [
        Patch(color=np.array(data.palette[k]) / 255, label=data.class_names[k])
        for k in present
        if k < len(data.class_names)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6)


places = np.linspace(0, len(scenes["train"]) - 1, SCENES).round().astype(int)
items = [scenes["train"][int(place)] for place in places]
figure, axes = plt.subplots(2, SCENES, figsize=(2.6 * SCENES, 4.6), layout="constrained", dpi=70)
for column, item in enumerate(items):
    axes[0, column].imshow(item["image"].permute(1, 2, 0))
    axes[0, column].set_title(item["name"])
    axes[1, column].imshow(colours[item["mask"].numpy()], interpolation="nearest")
for axis in axes.flat:
    axis.set_axis_off()
legend(figure, np.unique(np.concatenate([item["mask"].numpy().ravel() for item in items])))
plt.show()

# %% [markdown]
# ## Histograms
#
# Left: the share of all labelled pixels that each class has, on a logarithmic axis. Right: the
# share of scenes in which the class occurs at all. A class that is rare on the left decides as much
# of the mIoU as one that is common.

# %%
counts = pixel_counts(scenes["train"], scratch)  # (scenes, classes + 1), void last
classes = counts[:, :-1]
share = classes.sum(0) / classes.sum()
order = np.argsort(share)[-40:]  # of hundreds of classes the commonest
figure, (left, right) = plt.subplots(
    1, 2, sharey=True, figsize=(9, 1.2 + 0.24 * len(order)), layout="constrained", dpi=70
)
names = [data.class_names[k] for k in order]
left.plot(100 * share[order], names, "o", color="black")
left.set_xscale("log")
left.grid(color="0.85")
left.set_xlabel("% of labelled pixels")
right.barh(names, 100 * (classes > 0).mean(0)[order], color="0.4")
right.set_xlabel("% of scenes that have the class")
right.set_xlim(0, 100)
plt.show()
print(f"void: {100 * counts[:, -1].sum() / counts.sum():.1f}% of all pixels")

# %% [markdown]
# How large the connected regions of each class are, as a share of the image; in brackets how many
# there are in the first 64 scenes. Small ones are what local distribution is meant to give back.

# %%
sizes = {k: [] for k in order}
for place in range(min(64, len(scenes["train"]))):
    mask = scenes["train"][place]["mask"].numpy()
    for k in order:
        inside = (mask == k).astype(np.uint8)
        _, _, found, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
        sizes[k] += (found[1:, cv2.CC_STAT_AREA] / mask.size).tolist()
kept = [k for k in order if sizes[k]]
figure, axis = plt.subplots(figsize=(8, 1.2 + 0.26 * len(kept)), layout="constrained", dpi=70)
axis.boxplot(
    [100 * np.array(sizes[k]) for k in kept],
    orientation="horizontal",
    whis=(5, 95),
    showfliers=False,
    tick_labels=[f"{data.class_names[k]} ({len(sizes[k])})" for k in kept],
    medianprops={"color": "black"},
)
axis.set_xscale("log")
axis.set_xlabel("size of a region, % of the image (box: quartiles, whiskers: 5% to 95%)")
plt.show()

# %% [markdown]
# ## Augmentation
#
# One training scene as six different epochs see it. What is drawn depends on seed, epoch and scene
# alone, so all arms of an ablation see the same crops, with any number of workers.

# %%
opened = scenes["train"].open(int(places[0]))
figure, axes = plt.subplots(2, 6, figsize=(12, 4.2), layout="constrained", dpi=60)
for epoch in range(6):
    image, mask = data.train_transform(
        opened.image, opened.labels, (cfg.seed, epoch, 0, 0), opened.lut
    )
    axes[0, epoch].imshow(image)
    axes[0, epoch].set_title(f"epoch {epoch}")
    axes[1, epoch].imshow(colours[mask], interpolation="nearest")
for axis in axes.flat:
    axis.set_axis_off()
plt.show()

# %% [markdown]
# For files on disk, `gald data verify NAME` reads all of them and lists what is wrong.
