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
# A network has a backbone, a *global aggregation* (GA) that gathers context from the whole image,
# and a *local distribution* (LD) that decides how much of the context each position uses. This
# notebook composes a network, trains it for about a minute on synthetic streets, and predicts an
# unseen image. All files go to a temporary folder.

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
from gald.training.train import train

os.chdir(tempfile.mkdtemp())
set_matplotlib_formats("jpeg")  # keeps the notebook small

# %% tags=["parameters"]
EPOCHS = 3
IMAGES = 96

# %% [markdown]
# ## Compose
#
# `experiment=demo` is a recipe; every override after it replaces a part. The same overrides work
# on the command line: `gald train experiment=demo model/ga=psp`.

# %%
overrides = [
    "experiment=demo",
    "model/ga=cgnl",
    "model/ld=mask",
    f"trainer.max_epochs={EPOCHS}",
    f"scheduler.warmup_steps={EPOCHS * IMAGES // 8 // 4}",  # a quarter of all steps
    f"data.train_count={IMAGES}",
    "data.val_count=16",
    "data.test_count=16",
    "data.num_workers=0",
    "metrics=miou",
    "logger=csv",
    "output_dir=runs/quickstart",
]
cfg = compose("train", overrides)
print(OmegaConf.to_yaml(cfg.model.ga), OmegaConf.to_yaml(cfg.model.ld), sep="\n")

# %% [markdown]
# ## Train
#
# Training prints one line per epoch, then a table of the best epoch's scores. The run folder holds
# everything to use the network or to resume its training.

# %%
results = train(cfg)

# %% [markdown]
# ## Predict
#
# `gald.load` takes a run folder, a checkpoint, or a name on the hub; `predict` takes a file, an
# array or a tensor.

# %%
data = instantiate(cfg.data)
sample = data.make_dataset("test")[3]
prediction = gald.load("runs/quickstart").predict(sample["image"])

figure, axes = plt.subplots(2, 2, figsize=(8, 6.6), layout="constrained", dpi=70)
colours = np.full((256, 3), 0, np.uint8)
colours[: len(data.palette)] = data.palette
views = {
    "image": prediction.image,
    "ground truth (void black)": colours[sample["mask"].numpy()],
    "prediction": colours[prediction.labels],
}
for axis, (title, view) in zip(axes.flat, views.items(), strict=False):
    axis.imshow(view)
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
# The share of the image that each class covers, predicted and in the ground truth:

# %%
known = sample["mask"].numpy()[sample["mask"].numpy() != 255]
for index, (name, share) in enumerate(prediction.shares().items()):
    print(f"{name:<11} predicted {100 * share:5.1f}%   true {100 * (known == index).mean():5.1f}%")

# %% [markdown]
# Such a short training shows that the parts work together, not how good a module is. Next:
# datasets (`02_datasets`), the effect of LD (`03_affinity_maps`), and a sweep (`04_ablation`).
