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
# # Quickstart: compose, train, predict
#
# A network for scene parsing is composed of words: a backbone, a *global aggregation* (GA) that
# tells every position about the whole scene, and a *local distribution* (LD) that decides how much
# of it each position takes. Here we compose one, train it for about a minute on synthetic street
# scenes, and let it parse a scene that it has not seen. All files go to a temporary folder.

# %%
import warnings

warnings.filterwarnings("ignore", message=".*(IProgress|ipywidgets)")  # of progress bars

import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from hydra.utils import instantiate
from matplotlib.patches import Patch
from matplotlib_inline.backend_inline import set_matplotlib_formats
from omegaconf import OmegaConf

import gald
from gald.config import compose
from gald.train import train

os.chdir(tempfile.mkdtemp())
set_matplotlib_formats("jpeg")  # pictures that keep the notebook small

# %% tags=["parameters"]
EPOCHS = 3
SCENES = 96

# %% [markdown]
# ## Compose
#
# `experiment=demo` is a recipe; every word after it replaces a part. The same words work on the
# command line: `gald train experiment=demo model/ga=psp`. `model/ga` has 24 options, `model/ld` 12.

# %%
words = [
    "experiment=demo",
    "model/ga=cgnl",
    "model/ld=mask",
    f"trainer.max_epochs={EPOCHS}",
    f"scheduler.warmup_steps={EPOCHS * SCENES // 8 // 4}",  # a quarter of all steps
    f"data.train_count={SCENES}",
    "data.val_count=16",
    "data.test_count=16",
    "data.num_workers=0",
    "metrics=miou",
    "logger=csv",
    "output_dir=runs/quickstart",
]
cfg = compose("train", words)
print(OmegaConf.to_yaml(cfg.model.ga), OmegaConf.to_yaml(cfg.model.ld), sep="\n")

# %% [markdown]
# ## Train
#
# One line an epoch, then the table of the best epoch's scores. The run folder holds all that is
# needed to use the network or to go on with its training.

# %%
results = train(cfg)

# %% [markdown]
# ## Predict
#
# `gald.load` takes a run folder, a checkpoint, or a name on the hub; `predict` takes a file, an
# array or a tensor.

# %%
data = instantiate(cfg.data)
scene = data.make_dataset("test")[3]
prediction = gald.load("runs/quickstart").predict(scene["image"])

figure, axes = plt.subplots(2, 2, figsize=(8, 6.6), layout="constrained", dpi=70)
colours = np.full((256, 3), 0, np.uint8)
colours[: len(data.palette)] = data.palette
views = {
    "image": prediction.image,
    "truth (void black)": colours[scene["mask"].numpy()],
    "prediction": colours[prediction.labels],
}
for axis, (title, picture) in zip(axes.flat, views.items(), strict=False):
    axis.imshow(picture)
    axis.set_title(title)
drawn = axes.flat[3].imshow(prediction.ld_map, cmap="viridis")
axes.flat[3].set_title("LD map, mean over channels")
figure.colorbar(drawn, ax=axes.flat[3], shrink=0.8)
for axis in axes.flat:
    axis.set_axis_off()
pairs = zip(data.class_names, data.palette, strict=True)
handles = [Patch(color=np.array(colour) / 255, label=name) for name, colour in pairs]
figure.legend(handles=handles, loc="outside lower center", ncols=5)
plt.show()

# %% [markdown]
# Share of the image that each class was given, next to the truth:

# %%
known = scene["mask"].numpy()[scene["mask"].numpy() != 255]
for index, (name, share) in enumerate(prediction.shares().items()):
    print(f"{name:<11} predicted {100 * share:5.1f}%   true {100 * (known == index).mean():5.1f}%")

# %% [markdown]
# A training this short shows that everything fits together, not how good a module is. Next: look at
# data (`02_datasets`), at what LD does (`03_affinity_maps`), and at a sweep (`04_ablation`).
