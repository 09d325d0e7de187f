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
# `DATA` holds the overrides that choose a dataset. Synthetic streets need no files; for other
# datasets add the path: `DATA = ["data=camvid", "data.root=/path/to/CamVid"]`. The rest of the
# notebook works for every dataset.

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

set_matplotlib_formats("jpeg")  # keeps the notebook small

# %% tags=["parameters"]
DATA = ["data=synthetic"]
IMAGES = 4

# %%
scratch = tempfile.mkdtemp()  # keeps the pixel counts of each class
overrides = [*DATA, f"data.cache_dir={scratch}", "data.num_workers=0", "output_dir=unused"]
cfg = compose("train", overrides)
data = instantiate(cfg.data)
splits = ["train", "val"] + (["test"] if data.has_test else [])
datasets = {split: data.make_dataset(split) for split in splits}
for split, dataset in datasets.items():
    print(f"{split:<6}{len(dataset):>7} images, the first: {dataset.image_name(0)}")

# %% [markdown]
# ## Samples
#
# Images above, labels below. Black is void, which neither the loss nor a score counts.

# %%
colours = np.zeros((256, 3), np.uint8)
colours[: len(data.palette)] = data.palette


def legend(figure, present):
    """Add a legend of the classes in the figure."""
    handles = [
        Patch(color=np.array(data.palette[k]) / 255, label=data.class_names[k])
        for k in present
        if k < len(data.class_names)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6)


places = np.linspace(0, len(datasets["train"]) - 1, IMAGES).round().astype(int)
items = [datasets["train"][int(place)] for place in places]
figure, axes = plt.subplots(2, IMAGES, figsize=(2.6 * IMAGES, 4.6), layout="constrained", dpi=70)
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
# Left: each class's share of all labelled pixels, on a logarithmic axis. Right: the share of
# images in which the class occurs. A rare class contributes as much to the mIoU as a common one.

# %%
counts = pixel_counts(datasets["train"], scratch)  # (images, classes + 1), void last
classes = counts[:, :-1]
share = classes.sum(0) / classes.sum()
order = np.argsort(share)[-40:]  # the 40 most common classes
figure, (left, right) = plt.subplots(
    1, 2, sharey=True, figsize=(9, 1.2 + 0.24 * len(order)), layout="constrained", dpi=70
)
names = [data.class_names[k] for k in order]
left.plot(100 * share[order], names, "o", color="black")
left.set_xscale("log")
left.grid(color="0.85")
left.set_xlabel("% of labelled pixels")
right.barh(names, 100 * (classes > 0).mean(0)[order], color="0.4")
right.set_xlabel("% of images with the class")
right.set_xlim(0, 100)
plt.show()
print(f"void: {100 * counts[:, -1].sum() / counts.sum():.1f}% of all pixels")

# %% [markdown]
# The sizes of the connected regions of each class, as a share of the image; in brackets, their
# number in the first 64 images. Local distribution is meant to restore the small ones.

# %%
sizes = {k: [] for k in order}
for place in range(min(64, len(datasets["train"]))):
    mask = datasets["train"][place]["mask"].numpy()
    for k in order:
        inside = (mask == k).astype(np.uint8)
        _, _, regions, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
        sizes[k] += (regions[1:, cv2.CC_STAT_AREA] / mask.size).tolist()
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
# One training image in six epochs. The crop depends only on (seed, epoch, image), so all arms of
# an ablation see the same crops, with any number of workers.

# %%
opened = datasets["train"].open(int(places[0]))
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
# `gald data verify NAME` reads all files of a dataset and lists the problems.
