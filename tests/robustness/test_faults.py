"""Planted faults: every verb refuses a bad word or file in one sentence, and leaves nothing.

Each row is a command line and what its sentence must name, the thing and the remedy. All rows run
in one process and share one trained run.
"""

import copy
import json
import os
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from hydra._internal.hydra import Hydra

from gald import cli
from gald.export.export import OPSETS

SECONDS = 5  # of the processor, for one refusal
TOY = (
    "data.size=[48,64] data.train_transform.crop_size=[40,48] data.train_count=4 data.val_count=2 "
    "data.test_count=2 data.global_batch_size=4 data.num_workers=0 model.channels=16 "
    "model.backbone.name=test_resnet trainer.accelerator=cpu logger=csv callbacks=[checkpoint] "
    "metrics=miou test=false"
)
GONE = object()

OPTIONS = {
    "optimizer.lr=nan": "optimizer.lr=nan: lr must be a finite number >= 0; choose",
    "optimizer.lr=inf": "choose optimizer.lr=0.01",
    "optimizer.lr=abc": "optimizer.lr=abc | a finite number >= 0; choose optimizer.lr=0.01",
    "optimizer.lr=-1": "optimizer.lr=-1 | >= 0",
    "optimizer.lr=null": "optimizer.lr=null | choose optimizer.lr=0.01",
    "optimizer.lr=[1]": "optimizer.lr=[1]",
    "~optimizer.lr": "SGD needs optimizer.lr | ~optimizer.lr",
    "optimizer.momentum=2": "optimizer.momentum=2 | < 1 | choose optimizer.momentum=0.9",
    "optimizer.weight_decay=-1": "optimizer.weight_decay=-1 | >= 0",
    "optimizer=adamw +optimizer.betas=[0.9,2]": "optimizer.betas=[0.9,2] | entry [1]",
    "+optimizer.nesterof=true": "SGD has no option nesterof; did you mean nesterov?",
    "scheduler.power=0": "scheduler.power=0 | > 0",
    "scheduler.warmup_steps=-1": "scheduler.warmup_steps=-1 | >= 0",
    "scheduler.warmup_steps=1.5": "scheduler.warmup_steps=1.5 | a whole number",
    "data.train_transform.flip=1.5": "data.train_transform.flip=1.5 | <= 1 | flip=0.5",
    "data.train_transform.flip=yes": "data.train_transform.flip=yes | a finite number",
    "data.train_transform.scale=[nan,2]": "scale=[nan,2] | entry [0] | scale=[0.5,2.0]",
    "data.train_transform.scale=[2,0.5]": "scale | scale=[0.5,2.0]",
    "data.train_transform.scale=[1]": "scale=[1] | with 2 entries",
    "data.train_transform.crop_size=64": "crop_size=64 | a list with 2 entries",
    "data.train_transform.crop_size=[0,64]": "crop_size=[0,64] | >= 1",
    "data.train_transform.hue=0.7": "hue=0.7 | <= 0.5",
    "data.train_transform.color_jitter=-1": "color_jitter=-1 | >= 0",
    "data.train_transform.cat_max_ratio=0": "cat_max_ratio=0 | > 0",
    "data.train_transform=5": "data.train_transform=5 | data.train_transform=null",
    "data.num_workers=two": "data.num_workers=two | choose data.num_workers=2",
    "data.num_workers=-1": "data.num_workers=-1 | >= 0",
    "data.num_workers=99999": "data.num_workers=99999 | <= 1024",
    "data.global_batch_size=0": "data.global_batch_size=0 | >= 1 | =8",
    "data.micro_batch_size=0": "data.micro_batch_size=0 | null",
    "data.eval_batch_size=1.5": "data.eval_batch_size=1.5",
    "data.class_uniform=2": "data.class_uniform=2 | <= 1",
    "data.cache=disk": "data.cache=disk | one of none, ram, decoded",
    "data.size=[5,5]": "data.size=[5,5] | >= 32",
    "data=synthetic_context data.size=[5,5]": "data.size=[5,5] | >= 24",
    "data.train_count=0": "data.train_count=0 | >= 1",
    "data.scene_seed=-1": "data.scene_seed=-1",
    "data.workers=2": "data.workers | num_workers",
    "data=null": "data=null | choose one of ade20k",
    "data=nope": "data has no option 'nope' | camvid",
    "data=camvid data.root=no/such": "no/such | data.root",
    "data=camvid data.root=/etc/passwd": "/etc/passwd | data.root",
    "data=folder data.root=. data.val_fraction=1": "data.val_fraction=1 | 0.2",
    "data=pascal_context data.classes=58": "data.classes=58 | one of 59, 60",
    "data=pascal_context data.order=zebra": "data.order=zebra | voc_first",
    "trainer.max_epochs=2.5": "trainer.max_epochs=2.5 | choose trainer.max_epochs=20",
    "trainer.max_epochs=2.0": "choose trainer.max_epochs=2",
    "trainer.max_epochs=0": "trainer.max_epochs=0 | set trainer.max_epochs",
    "trainer.max_epochs=-2": "trainer.max_epochs=-2",
    "+trainer.max_steps=-5": "trainer.max_steps=-5",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val=-1 | >= 0",
    "trainer.gradient_clip_val=nan": "trainer.gradient_clip_val=nan",
    "trainer.check_val_every_n_epoch=0": "check_val_every_n_epoch=0 | >= 1",
    "trainer.log_every_n_steps=-1": "trainer.log_every_n_steps=-1",
    "trainer.devices=0": "trainer.devices=0 | >= 1",
    "trainer.devices=99": "99 | data.global_batch_size",
    "trainer.num_nodes=0": "trainer.num_nodes=0 | >= 1",
    "trainer.accelerator=tpu": "trainer.accelerator=tpu | one of auto, cpu, gpu",
    "trainer.precision=8": "trainer.precision=8 | bf16-mixed",
    "trainer.strategy=fsdp": "trainer.strategy=fsdp | ddp",
    "trainer.sync_batchnorm=maybe": "trainer.sync_batchnorm=maybe | true or false",
    "trainer.deterministic=5": "trainer.deterministic=5 | warn",
    "+trainer.limit_val_batches=-1": "trainer.limit_val_batches=-1",
    "+trainer.max_epoch=3": "Trainer has no option max_epoch; did you mean max_epochs?",
    "task.head_lr_factor=-1": "task.head_lr_factor=-1 | >= 0",
    "task.layer_decay=2": "task.layer_decay=2 | <= 1",
    "task.decay_norm_and_bias=3": "task.decay_norm_and_bias=3 | true or false",
    "loss.main.ignore_index=3": "loss.main.ignore_index=3 | 255",
    "loss.weight=-1": "loss.weight=-1 | >= 0",
    "loss.main.label_smoothing=1": "label_smoothing=1 | < 1",
    "loss.main.class_weight=[]": "class_weight=[] | 1 or more",
    "loss.main.class_weight=[1,nan]": "class_weight=[1,nan] | entry [1]",
    "loss=ohem loss.main.threshold=7": "loss.main.threshold=7 | <= 1",
    "loss=ohem loss.main.min_kept=-1": "loss.main.min_kept=-1 | >= 0",
    "loss=ohem loss.main.over=epoch": "loss.main.over=epoch | one of image, batch",
    "model.channels=0": "channels=0 | >= 1",
    "model.channels=1e9": "channels | 65536",
    "model.order=ld": "model.order=ld | one of ga_ld, ld_ga, parallel",
    "model.ga=psp": "model.ga=psp | write model/ga=psp",
    "model.ga=nope": "model.ga=nope | write model/ga=OPTION",
    "model.ga.groups=0": "model.ga.groups=0 | >= 1",
    "model.ga.groups=7": "model.ga | groups (7)",
    "+model.ga.widht=3": "CGNL has no option widht",
    "model/ga=none +model.ga.groups=3": "Identity has no option groups",
    "model/ga=ema model.ga.momentum=1.5": "model.ga.momentum=1.5 | < 1",
    "model/ga=psp model.ga.bins=[0]": "model.ga.bins=[0] | entry [0]",
    "model/ga=mhsa model.ga.positions=polar": "positions=polar | one of rotary, none",
    "model.ld.steps=0": "model.ld.steps=0 | >= 1",
    "model.ld.padding=2": "model.ld.padding=2 | one of 0, 1",
    "model/ld=guided model.ld.eps=0": "model.ld.eps=0 | > 0",
    "model/ld=window model.ld.kernel_size=4": "kernel_size (4) | 5",
    "model.aux_head.dropout=1": "dropout=1 | < 1",
    "model.backbone.frozen=-1": "model.backbone.frozen=-1",
    "model.backbone.levels=[]": "model.backbone.levels=[]",
    "model.backbone.input=grey": "model.backbone.input=grey | one of rgb, bgr",
    "model.backbone.name=resnet81": "resnet81 | did you mean",
    "model.backbone.weights=/etc": "model.backbone | /etc | weight file",
    "model=3": "model=3 | choose one of gald",
    "~model.channels": "channels | not set",
    "experiment=demo model/neck=none": "NoNeck has no option stride | ~model.neck.stride",
    "inference=multi_scale inference.scales=[nan]": "inference.scales=[nan] | entry [0]",
    "inference=multi_scale inference.scales=[]": "inference.scales=[] | 1 or more",
    "inference=slide inference.overlap=1": "inference.overlap=1 | < 1",
    "inference=slide inference.window=[0,8]": "inference.window=[0,8] | >= 1",
    "inference=slide inference.blending=soft": "blending=soft | one of uniform, gaussian",
    "metrics=all metrics.ece.bins=0": "metrics.ece.bins=0 | >= 1",
    "metrics=all metrics.ece=5": "metrics.ece=5",
    "metrics=all metrics.trimap.farthest=300": "metrics.trimap.farthest=300 | <= 254",
    "metrics=all metrics.thin.max_width=0": "metrics.thin.max_width=0 | > 0",
    "metrics=all metrics.size.edges=[0.1,2]": "metrics.size.edges=[0.1,2] | < 1",
    "callbacks=[ema] callbacks.ema.decay=2": "callbacks.ema.decay=2 | <= 1",
    "callbacks=[checkpoint] callbacks.last.minutes=-1": "callbacks.last.minutes=-1 | >= 0",
    "callbacks=[early_stopping] callbacks.early_stopping.patience=-1": "patience=-1 | >= 0",
    "callbacks=[early_stopping] callbacks.early_stopping.mode=up": "mode=up | one of min, max",
    "logger=wandb logger.wandb.mode=onlin": "mode=onlin | one of offline, online, disabled",
    "seed=-1": "seed=-1 | >= 0 | choose seed=0",
    "seed=1.5": "seed=1.5",
    "test=maybe": "test=maybe | true or false",
    "init_from_strict=5": "init_from_strict=5 | true or false",
    "init_from=nowhere.ckpt": "nowhere.ckpt",
    "ckpt_path=nowhere.ckpt": "nowhere.ckpt | ckpt_path=FILE",
    "name=null": "name=null | a text",
    "~data": "no key data | ~data",
    "+lr=0.1": "lr=0.1: nothing reads lr",
    "lr=0.1": "lr",
    "foo": "'foo' is not KEY=VALUE | foo=VALUE",
    "--foo": "gald train has no flag --foo | KEY=VALUE",
    "--max_epochs=3": "--max_epochs=3 | KEY=VALUE",
    "--cfg pages": "--cfg | job",
    "optimizer._target_=torch.optim.Nope": "torch.optim.Nope | correct the path",
}
FOLDERS = {
    "train output_dir=/etc/passwd": "/etc/passwd | name another",
    "train output_dir=/etc/passwd/x": "/etc/passwd/x | name another",
    "train output_dir=/proc/x": "/proc/x",
    "train output_dir=": "output_dir= | leave output_dir out",
    "train output_dir=null": "output_dir=null | leave output_dir out",
    "train output_dir=run": "run already holds a run | ckpt_path=last",
    "train -m seed=0,1 hydra.sweep.dir=/etc/passwd": "/etc/passwd | name another",
    "train -m seed=0,1 hydra.sweep.dir=/etc/passwd/x": "/etc/passwd/x | name another",
    "sweep plan --no-probe seed=0,1 hydra.sweep.dir=/etc/passwd": (
        "hydra.sweep.dir /etc/passwd cannot be written | name another"
    ),
    "sweep plan --no-probe seed=0,1 hydra.sweep.dir=/etc/passwd/x": (
        "hydra.sweep.dir /etc/passwd/x cannot be written"
    ),
    "sweep plan --no-probe seed=0,1 hydra.sweep.dir=/proc/x": "hydra.sweep.dir /proc/x cannot",
    "sweep plan seed=0,1 --to /etc/passwd": "--to /etc/passwd cannot be written | name another",
    "eval ckpt_path=run output_dir=/etc/passwd/x": "/etc/passwd/x | name another",
    "profile output_dir=/etc/passwd/x": "/etc/passwd/x | name another",
    "data stats camvid data.root=/etc/passwd": "/etc/passwd | data.root",
    "data prepare camvid data.root=/etc/passwd": "/etc/passwd is a file | data.root=FOLDER",
    "data verify synthetic --output /etc/passwd/x": "--output /etc/passwd",
    "data browse synthetic --output /etc/passwd/x.png": "--output /etc/passwd",
    "data import coco /etc/passwd --to x": "/etc/passwd is not a folder",
    "predict run photo.png --to /etc/passwd": "/etc/passwd is a file",
    "predict run photo.png --to /etc/passwd/x": "--to /etc/passwd/x",
    "predict run photo.png --to /proc/x": "--to /proc/x",
    "export run --to /etc/passwd/x.onnx --format onnx": "/etc/passwd",
    "export run --to run --format pretrained": "already exists | --to",
    "convert run --to /etc/passwd": "/etc/passwd | --to",
    "convert run --to run": "run already holds | --to",
    "compare run eval --to /etc/passwd": "/etc/passwd | ",
    "compare run eval --to /etc/passwd/x": "--to /etc/passwd/x",
    "table sweep --to /etc/passwd/x": "--to /etc/passwd/x",
    "report run --to /etc/passwd": "/etc/passwd is a file | --to",
    "report run --to /etc/passwd/x": "--to /etc/passwd/x",
    "report run --to /proc/x": "--to /proc/x",
    "report run --to eval": "eval already holds | which is of no report | --to",
    "report run --to run": "run already holds | --to",
    "viz run --image photo.png --to /etc/passwd/x": "--to /etc/passwd/x",
    "submit cityscapes run --to maps.txt --data-root /etc/passwd": "/etc/passwd",
    "wandb dashboard sweep --entity me --to /etc/passwd": "",
}
VERBS = {
    "nope": "no verb 'nope' | choose one of train",
    "doctor now": "gald doctor does not take 'now'",
    "eval": "ckpt_path must be set | ckpt_path=VALUE",
    "eval --foo": "gald eval has no flag --foo",
    "eval ckpt_path=nope": "nope",
    "eval ckpt_path=run split=dev": "split=dev | one of val, test",
    "eval ckpt_path=run seed=-1": "seed=-1",
    "eval ckpt_path=run trainer.devices=0": "trainer.devices=0",
    "eval ckpt_path=run metrics.ece.bins=0": "metrics.ece.bins=0",
    "eval ckpt_path=run inference=slide inference.overlap=2": "inference.overlap=2",
    "eval ckpt_path=run data=camvid data.root=nope": "choose data with the network's classes",
    "eval ckpt_path=run output_dir=eval": "eval/results.json already holds results",
    "eval --check": "--check RESULTS_JSON",
    "eval --check nope": "nope",
    "eval --check eval/results.json seed=3": "seed=3 | ckpt_path=FILE",
    "profile batch_size=0": "batch_size=0 | choose batch_size=1",
    "modules unett": "no host 'unett' | unet",
    "modules lraspp --ga pspp": "no ga 'pspp' | psp",
    "modules lraspp --ld ocr": "no ld 'ocr' | affinity",
    "modules lraspp --ga ocr": "OCR | another model/ga",
    "modules lraspp --size 0 5": "--size is 0 5 | 1 or more",
    "modules lraspp --size 5": "--size | 2",
    "modules lraspp model.host.network=x": "'x' | model.host.network=deeplabv3",
    "modules own": "model.host._target_ must be set",
    "train augment=strong data.train_transform=null": "augment=strong | train_transform is null",
    "train loss=combined loss.main.losses.focal.gamma=3": "focal.gamma=3 | weights.focal=1",
    "train model=plugd": "'plugd' | did you mean model=plugged",
    "train model/host=lraspp": "model/host | add model=plugged",
    "train model.at=backbone": "model.at | add model=plugged",
    "train model=plugged model.backbone.name=resnet18": "model.backbone | a host instead",
    "train model=plugged experiment=demo": "model/backbone | a host instead | leave",
    "train model=plugged model/host=lraspp model.at=stem": "model.at=stem | model.at=backbone",
    "train model=plugged model/host=lraspp model.channels=0": "model.channels=0 | >= 1",
    "train model=plugged model/host=lraspp model.host.weights=no.pth": "no.pth | a file or null",
    "train model=plugged model/host=own model.host._target_=torch.nn.Linear": "num_classes",
    "train model=plugged model/host=own model.host._target_=nope.Net": "nope.Net | no such class",
    "profile size=[0,5]": "size=[0,5] | >= 1",
    "profile size=5": "size=5 | a list",
    "profile size=[1000000,1000000]": "memory | smaller",
    "profile rounds=x": "rounds=x",
    "probe probe.steps=0": "probe.steps=0 | >= 1",
    "probe probe.size=5": "probe.size=5 | a list",
    "probe probe.flip=2": "probe.flip=2",
    "probe trainer.max_epochs=3": "no config key trainer",
    "probe device=tpu": "tpu",
    "profile num_classes=0": "num_classes=0",
    "profile precision=8": "precision=8",
    "profile device=tpu": "tpu",
    "profile --foo": "gald profile has no flag --foo",
    "data": "",
    "data frob camvid": "no action 'frob' | verify",
    "data verify": "needs a NAME | camvid",
    "data verify nope": "no option 'nope' | camvid",
    "data verify synthetic foo": "'foo' is not key=value",
    "data verify synthetic --foo": "--foo",
    "data verify synthetic data.num_workers=two": "data.num_workers=two",
    "data verify synthetic --split dev": "dev",
    "data browse synthetic --count 0": "--count is 0",
    "data browse synthetic --output x.jpg": "x.jpg | .png",
    "data import": "needs KIND | --help",
    "data import coco nope --to x": "nope is not a folder",
    "predict run nope.jpg --to out": "nope.jpg",
    "predict run photo.png --to out --foo": "--foo",
    "predict run photo.png --to out --device tpu": "tpu",
    "predict nope photo.png --to out": "nope",
    "predict run photo.png --to out --inference slide inference.overlap=2": "inference.overlap=2",
    "predict run photo.png --to out --inference slide inference.foo=2": "inference.foo",
    "submit nope run": "nope | cityscapes",
    "submit cityscapes": "RUN | --check",
    "submit cityscapes --check nope.zip": "cityscapes",
    "submit cityscapes run --foo": "--foo",
    "export nope --to out --format pretrained": "nope",
    "export run --to out --format nope": "nope | pretrained",
    "export run --to x.ort --format onnx": "x.ort | --to x.onnx",
    "export run --to x.onnx --format torch": "x.onnx | --to x.pt2",
    "export run --to x.onnx --format onnx --opset 3": f"--opset 3 | set --opset {OPSETS[0]}",
    "export run --to x.onnx --format onnx --opset 99": f"--opset 99 | set --opset {OPSETS[0]}",
    "export run --to x.onnx --format onnx --opset x": "--opset",
    "export run --to x.onnx --format onnx --size 0 5": "--size 0 5 | --size 512 1024",
    "export run --to x.onnx --format onnx --size -1 5": "--size -1 5",
    "export run --to x.onnx --format onnx --size 9999999 9": "--size 9999999 9",
    "convert nope --to out": "nope",
    "completion": "SHELL | bash",
    "completion tcsh": "tcsh | bash",
    "convert photo.png --to out": "photo.png",
    "convert run/checkpoints/best.ckpt --to out": "already a checkpoint of gald",
    "compare run nope": "there is no nope",
    "compare run run": "given twice",
    "compare run eval --split dev": "dev",
    "compare run eval --samples 0": "--samples is 0 | --samples 100",
    "compare run eval --seed -1": "--seed is -1 | --seed 0",
    "report": "RUN",
    "report nope": "there is no folder | nope",
    "report photo.png": "photo.png is a file | the folder of the run",
    "report run/checkpoints/best.ckpt": "best.ckpt is a file | the folder of the run",
    "report files": "files/results.json | the folder of a finished run",
    "report run --split dev": "dev",
    "report run --split test": "scores of val, not of test | gald eval ckpt_path=",
    "report run --device tpu": "tpu",
    "report run --data-root nope": "--data-root is nope | leave --data-root out",
    "report run --foo": "--foo",
    "table nope": "nope holds no sweep",
    "table run": "run holds no sweep",
    "table sweep --samples 5": "--samples is 5",
    "table sweep --seed -1": "--seed is -1",
    "table sweep --baseline foo=1": "foo",
    "table sweep --format nope": "nope | csv",
    "sweep nope": "no action 'nope' | status",
    "sweep status nope": "nope holds no sweep",
    "sweep status sweep/cells.jsonl": "cells.jsonl holds no sweep",
    "sweep retry nope": "nope holds no sweep",
    "sweep audit run": "run holds no sweep",
    "sweep plan foo": "'foo' is not KEY=VALUE",
    "sweep plan optimizer.lr=nan,0.1": "optimizer.lr=nan",
    "sweep plan model/ga=nope": "no option 'nope'",
    "sweep plan --difference nan": "--difference is nan",
    "sweep plan --sd 0": "--sd is 0",
    "sweep plan --sd nope": "nope",
    "train -m optimizer.lr=nan,0.1": "optimizer.lr=nan",
    "train -m seed=0,1 hydra.launcher.jobs=abc": "hydra.launcher.jobs=abc",
    "train -m seed=0,1 hydra.launcher.retries=-1": "hydra.launcher.retries=-1 | >= 0",
    "train -m seed=0,1 --foo": "--foo",
    "viz run --image nope.png": "nope.png",
    "viz run --image run": "run",
    "viz nope --image photo.png": "nope",
    "viz run --image photo.png --query 99999 5": "99999",
    "viz run --image photo.png --query a b": "--query",
    "wandb sync nope": "nope contains no offline wandb run",
    "wandb dashboard nope --entity me": "nope holds no sweep",
    "serve nope": "nope",
    "serve run --port 99999": "99999",
    "serve run --port x": "--port",
}
del VERBS["data"], FOLDERS["wandb dashboard sweep --entity me --to /etc/passwd"]


def change(place, value):
    """Return a function that sets a value in nested data, or removes the key."""

    def edit(content):
        *path, last = place
        for key in path:
            content = content[key]
        if value is GONE:
            del content[last]
        else:
            content[last] = value

    return edit


CHECKPOINTS = {  # changes of a checkpoint, and what the sentence names
    "gald text": (change(["gald"], "x"), "was not written by gald train"),
    "gald null": (change(["gald"], None), "was not written by gald train"),
    "weights text": (change(["state_dict"], "x"), "the text x as state_dict"),
    "weights null": (change(["state_dict"], None), "null as state_dict"),
    "weights list": (change(["state_dict"], [1]), "a list as state_dict"),
    "weights gone": (change(["state_dict"], GONE), "was not written by gald train"),
    "weights empty": (change(["state_dict"], {}), "nothing"),
    "tensor text": (lambda c: c["state_dict"].update({"model.x": "y"}), "state_dict.model.x"),
    "tensor null": (lambda c: c["state_dict"].update({"model.x": None}), "state_dict.model.x"),
    "key number": (lambda c: c["state_dict"].update({5: torch.zeros(1)}), "state_dict.5"),
    "names text": (change(["gald", "class_names"], "road"), "the text road as gald.class_names"),
    "names null": (change(["gald", "class_names"], None), "null as gald.class_names"),
    "names number": (change(["gald", "class_names"], [1] * 10), "gald.class_names"),
    "names empty": (change(["gald", "class_names"], []), "gald.class_names"),
    "names few": (change(["gald", "class_names"], ["road"]), "1 class names and 10 colours"),
    "palette text": (change(["gald", "palette"], "red"), "gald.palette"),
    "palette pairs": (change(["gald", "palette"], [[1, 2]] * 10), "gald.palette"),
    "palette large": (change(["gald", "palette"], [[1, 2, 999]] * 10), "gald.palette"),
    "config text": (change(["gald", "config"], "x"), "gald.config"),
    "config null": (change(["gald", "config"], None), "gald.config"),
    "model list": (change(["gald", "config", "model"], [1]), "model"),
    "model gone": (change(["gald", "config", "model"], GONE), "model"),
    "backbone text": (change(["gald", "config", "model", "backbone"], "x"), "backbone"),
    "backbone null": (change(["gald", "config", "model", "backbone"], None), "backbone"),
}
REMEDY = "init_from=states"
STATES = {  # changes of a training state, and what the sentence names
    "epoch text": (change(["epoch"], "x"), "the text x as epoch"),
    "epoch negative": (change(["epoch"], -3), "-3 as epoch"),
    "step gone": (change(["global_step"], GONE), "no key global_step"),
    "loops null": (change(["loops"], None), "null as loops"),
    "loops empty": (change(["loops"], {}), "state of this training"),
    "callbacks list": (change(["callbacks"], [1]), "a list as callbacks"),
    "optimizers text": (change(["optimizer_states"], "x"), "the text x as optimizer_states"),
    "optimizers empty": (change(["optimizer_states"], []), "optimizer_states"),
    "optimizer null": (change(["optimizer_states", 0], None), "optimizer_states"),
    "groups text": (change(["optimizer_states", 0, "param_groups"], "x"), "param_groups"),
    "groups empty": (change(["optimizer_states", 0, "param_groups"], []), "state of this training"),
    "average text": (
        change(["optimizer_states", 0, "state", 0, "momentum_buffer"], "x"),
        "optimizer_states.0.state.0.momentum_buffer",
    ),
    "schedule list": (change(["lr_schedulers"], ["x"]), "lr_schedulers"),
    "version text": (change(["pytorch-lightning_version"], "abc"), "state of this training"),
}
RESULTS = {  # changes of results.json, and what the sentence of gald compare names
    "score text": (change(["val/miou"], "x"), "the text x as val/miou"),
    "score list": (change(["val/miou"], [1]), "a list as val/miou"),
    "score gone": (change(["val/miou"], GONE), "no val/miou"),
    "score other": (change(["val/miou"], 0.123), "0.123"),
    "class text": (change(["val/iou/road"], "x"), "the text x as val/iou/road"),
    "receipt text": (change(["val/receipt"], "x"), "the text x as val/receipt"),
    "receipt null": (change(["val/receipt"], None), "null as val/receipt"),
}
RECEIPTS = {  # changes of a receipt, and what the sentence of gald eval --check names
    "data text": (change(["val/receipt", "data"], "x"), "val/receipt.data"),
    "data gone": (change(["val/receipt", "data"], GONE), "no key val/receipt.data"),
    "metrics empty": (change(["val/receipt", "metrics"], {}), "val/receipt.metrics"),
    "inference list": (change(["val/receipt", "inference"], [1]), "val/receipt.inference"),
    "precision null": (change(["val/receipt", "precision"], None), "val/receipt.precision"),
    "images gone": (change(["val/receipt", "images_sha256"], GONE), "images_sha256"),
    "checkpoint other": (change(["val/receipt", "checkpoint_sha256"], "x"), "SHA-256 differs"),
}
COUNTS = {  # changes of images_val.npz, and what the sentence of gald compare names
    "names gone": change(["names"], GONE),
    "places gone": change(["confusion.places"], GONE),
    "values fractions": change(["confusion.values"], np.array([0.5])),
    "values negative": change(["confusion.values"], np.array([-1])),
    "width small": change(["confusion.width"], np.array(3)),
    "width text": change(["confusion.width"], np.array("x")),
    "ends short": change(["confusion.ends"], np.array([1])),
}
SWEEP = {
    "header": {"version": 2, "name": "x", "command": ["gald"]},
    "cell": {"number": 0, "folder": "cell", "overrides": ["seed=0"]},
    "record": {
        "state": "done",
        "reason": None,
        "attempts": 1,
        "seconds": 1.0,
        "micro_batch_size": None,
        "score": 0.5,
    },
}
SWEEPS = {
    "version text": (change(["header", "version"], "x"), "version x"),
    "version gone": (change(["header", "version"], GONE), "no key line 1.version"),
    "name null": (change(["header", "name"], None), "null as line 1.name"),
    "command text": (change(["header", "command"], "gald"), "the text gald as line 1.command"),
    "cell null": (change(["cell"], None), "null as line 2"),
    "number other": (change(["cell", "number"], 5), "line 2.number"),
    "overrides text": (change(["cell", "overrides"], "seed=0"), "line 2.overrides"),
    "folder gone": (change(["cell", "folder"], GONE), "line 2.folder"),
    "folder above": (change(["cell", "folder"], "../run"), "'../run'"),
    "folder absolute": (change(["cell", "folder"], "/etc"), "'/etc'"),
    "folder itself": (change(["cell", "folder"], "."), "'.'"),
    "folder inside out": (change(["cell", "folder"], "a/../../run"), "a/../../run"),
}
RECORDS = {
    "state unknown": (change(["record", "state"], "lost"), "state"),
    "attempts gone": (change(["record", "attempts"], GONE), "attempts"),
    "seconds text": (change(["record", "seconds"], "x"), "seconds"),
    "record null": (change(["record"], None), "null"),
}
RAW = {  # whole files
    "text": b'"x"',
    "null": b"null",
    "list": b"[1]",
    "empty": b"",
    "binary": bytes(range(256)),
    "cut": b'{"version": 1, ',
}
CONFIGS = {"text": b"hello there: [", "list": b"- 1", "object": b"a: !!python/object:os.x {}"}
CLASSES = RAW | CONFIGS  # of the classes.yaml of a folder of data
CLASSES["number"] = b"classes: 5\n"
CLASSES["null_inside"] = b"classes: [null]\n"
CLASSES["zeros"] = b"classes: [{name: road, ids: [1]}]\n" + b"\0" * 40
CLASSES["cut"] = b"classes: [{name: road, ids: [1"
TORCH = {"text": "x", "null": None, "list": [1], "tensor": torch.zeros(3), "empty": {}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained run, an evaluation, a sweep, and every damaged file."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys.modules["__main__"], "__spec__", None)
        patch.setenv("PYTHONSAFEPATH", "")
        for line in (
            f"train {TOY} trainer.max_epochs=1 output_dir=run",
            "eval ckpt_path=run output_dir=eval metrics=miou",
        ):
            patch.setattr(sys, "argv", ["gald", *line.split()])
            cli.main()
    shutil.copy(folder / "run" / "picture.png", folder / "photo.png")
    _write_checkpoints(folder)
    _write_evaluations(folder)
    _write_sweeps(folder)
    _write_classes(folder)
    return folder


def _write_checkpoints(folder):
    (folder / "files").mkdir()
    (folder / "states").mkdir()
    for name, content in TORCH.items():
        torch.save(content, folder / "files" / f"{name}.ckpt")
    for source, changes, target in (
        ("best", CHECKPOINTS, "files"),
        ("last", STATES, "states"),
    ):
        whole = torch.load(folder / "run" / "checkpoints" / f"{source}.ckpt", weights_only=True)
        for name, (edit, _) in changes.items():
            content = copy.deepcopy(whole)
            edit(content)
            torch.save(content, folder / target / f"{name.replace(' ', '_')}.ckpt")


def _write_evaluations(folder):
    results = json.loads((folder / "eval" / "results.json").read_text())
    counts = dict(np.load(folder / "eval" / "images_val.npz"))

    def write(name, results_json=None, counts_npz=None):
        copied = folder / "evals" / name.replace(" ", "_")
        shutil.copytree(folder / "eval", copied)
        if results_json is not None:
            (copied / "results.json").write_bytes(results_json)
        if counts_npz is not None:
            np.savez(copied / "images_val.npz", **counts_npz)
        return copied

    for name, (edit, _) in (RESULTS | RECEIPTS).items():
        content = copy.deepcopy(results)
        edit(content)
        write(name, json.dumps(content).encode())
    for name, content in RAW.items():
        write(f"raw {name}", content)
    for name, edit in COUNTS.items():
        content = dict(counts)
        edit(content)
        write(f"counts {name}", counts_npz=content)
    (write("counts text") / "images_val.npz").write_text("hello")
    for name in ("images_val.npz", "results.json"):
        path = write(f"folder {name}") / name
        path.unlink()
        path.mkdir()


def _write_classes(folder):
    for name, content in CLASSES.items():
        for part in ("images", "masks"):
            (folder / "classes" / name / part / "train").mkdir(parents=True)
            shutil.copy(folder / "photo.png", folder / "classes" / name / part / "train" / "a.png")
        (folder / "classes" / name / "classes.yaml").write_bytes(content)


def _write_sweeps(folder):
    def write(name, sweep, raw=None, config=None):
        place = folder / name
        shutil.copytree(folder / "run", place / "cell", ignore=lambda *_: ["checkpoints"])
        lines = "".join(f"{json.dumps(sweep[part])}\n" for part in ("header", "cell"))
        (place / "cells.jsonl").write_bytes(lines.encode() if raw is None else raw)
        (place / "cell" / "cell.json").write_text(json.dumps(sweep["record"]))
        if config is not None:
            (place / "cell" / "config.yaml").write_bytes(config)

    write("sweep", SWEEP)
    for name, (edit, _) in (SWEEPS | RECORDS).items():
        content = copy.deepcopy(SWEEP)
        edit(content)
        write(f"sweeps/{name.replace(' ', '_')}", content)
    for name, content in RAW.items():
        write(f"sweeps/raw_{name}", SWEEP, content)
    for name, content in CONFIGS.items():
        write(f"sweeps/config_{name}", SWEEP, config=content)


def rows():
    """Pairs of a command line and what its sentence must name, separated by `|`."""
    for words, named in OPTIONS.items():
        yield f"train {words}", named
    yield from FOLDERS.items()
    yield from VERBS.items()
    for name in TORCH:
        yield f"export files/{name}.ckpt --to out --format pretrained", f"files/{name}.ckpt"
    verbs = [
        "export {} --to out --format pretrained",
        "eval ckpt_path={}",
        "predict {} photo.png --to out",
        "viz {} --image photo.png --to out",
    ]
    for number, (name, (_, named)) in enumerate(CHECKPOINTS.items()):
        file = f"files/{name.replace(' ', '_')}.ckpt"
        yield verbs[number % len(verbs)].format(file), f"{file} | {named}"
    for name, (_, named) in STATES.items():
        file = f"states/{name.replace(' ', '_')}.ckpt"
        line = f"train {TOY} trainer.max_epochs=2 output_dir=out ckpt_path={file}"
        yield line, f"{file} | {named} | init_from={file}"
    yield from evaluation_rows()


def evaluation_rows():
    """The rows about results, receipts, counts and sweeps."""
    for name, (_, named) in RESULTS.items():
        yield f"compare evals/{name.replace(' ', '_')} eval", f"results.json | {named}"
    for name in RAW:
        yield f"compare evals/raw_{name} eval", f"raw_{name}/results.json"
        yield f"report evals/raw_{name}", f"raw_{name}/results.json"
    for name in (*COUNTS, "text"):
        file = f"counts_{name.replace(' ', '_')}"
        yield f"compare evals/{file} eval", f"{file}/images_val.npz | evaluat"
    for name in ("images_val.npz", "results.json"):
        yield f"compare evals/folder_{name} eval", name
    for name, (_, named) in RECEIPTS.items():
        yield f"eval --check evals/{name.replace(' ', '_')}/results.json", named
    for name in RAW:
        yield f"eval --check evals/raw_{name}/results.json", f"raw_{name}/results.json"
    for number, (name, (_, named)) in enumerate(SWEEPS.items()):
        verb = ("sweep status", "table", "sweep retry", "sweep audit", "sweep run")[number % 5]
        yield f"{verb} sweeps/{name.replace(' ', '_')}", f"cells.jsonl | {named}"
    for name, (_, named) in RECORDS.items():
        yield f"sweep retry sweeps/{name.replace(' ', '_')}", f"cell.json | {named}"
    for name in RAW:
        yield f"sweep status sweeps/raw_{name}", f"raw_{name}/cells.jsonl | delete it"
    verbs = ["train data=folder data.root={}", "data verify folder data.root={}"]
    verbs += ["data stats folder data.root={}", "data browse folder data.root={} --output x.png"]
    for number, name in enumerate(CLASSES):
        root = f"classes/{name}"
        yield verbs[number % len(verbs)].format(root), f"{root}/classes.yaml"


ROWS = list(rows())


def listing(folder):
    """Every path below a folder, with size and time of the files."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                found |= {entry.path: None, **listing(entry.path)}
            elif not entry.name.endswith(".lock"):  # of the owner
                state = entry.stat()
                found[entry.path] = state.st_size, state.st_mtime_ns
    return found


def test_there_are_at_least_150_planted_faults():
    assert len(dict(ROWS)) == len(ROWS) >= 150
    assert {line.split()[0] for line, _ in ROWS} >= set(cli.VERBS)


@pytest.fixture(scope="module")
def listed(place):
    """What is in the folder, as the last row found it."""
    return [listing(place)]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("line", "named"), ROWS, ids=[line[-70:] for line, _ in ROWS])
def test_fault_ends_in_one_sentence_and_leaves_nothing(
    line, named, place, listed, monkeypatch, capfd
):
    monkeypatch.chdir(place)
    # Hydra composes each config once more to read hydra.mode, which no row sets.
    monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["gald", *line.split(" ")])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.delenv("GALD_TRACEBACK", raising=False)
    started = time.process_time()
    with pytest.raises(SystemExit) as stop:
        cli.main()
    seconds = time.process_time() - started
    assert stop.value.code not in (0, None)
    lines = [text for text in capfd.readouterr().err.splitlines() if text.strip()]
    lines = [text for text in lines if not text.startswith("backbone weights: took")]
    assert len(lines) == 2 and lines[1].startswith("(GALD_TRACEBACK=1"), lines
    sentence = lines[0]
    assert sentence.startswith("gald: ")
    for text in filter(None, (text.strip() for text in named.split("|"))):
        assert text in sentence
    kinds = ("Error: ", "Traceback", "[Errno")
    allowed = "state of this training" in sentence  # it quotes the reason of another program
    assert allowed or not any(kind in sentence for kind in kinds), sentence
    before, listed[0] = listed[0], listing(place)
    assert listed[0] == before
    assert seconds < SECONDS


@pytest.mark.parametrize("name", CONFIGS)
def test_an_audit_lists_a_damaged_config_as_a_finding(name, place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["gald", "sweep", "audit", f"sweeps/config_{name}"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    shown = "".join(capfd.readouterr())
    assert stop.value.code not in (0, None) and "cell 0 cannot be checked" in shown
    assert f"config_{name}/cell/config.yaml" in shown.replace("\n", "")


CONSOLE = [
    "train optimizer.lr=nan",
    "train --foo",
    "train output_dir=/etc/passwd/x",
    "eval ckpt_path=files/names_text.ckpt",
    "profile batch_size=0",
    "data verify nope",
    "predict run photo.png --to /proc/x",
    "export run --to x.onnx --format onnx --opset 3",
    "compare evals/score_text eval",
    "sweep audit sweeps/folder_above",
]


OFTEN = ("train --foo", "predict run photo.png --to /proc/x")  # these import little


@pytest.mark.parametrize(
    "line",
    [pytest.param(line, marks=[] if line in OFTEN else [pytest.mark.slow]) for line in CONSOLE],
)
def test_installed_program_refuses_the_same(line, place, console):
    named = dict(ROWS).get(line, line.split("=")[-1])
    before = listing(place)
    done = console(*line.split(" "), cwd=place)
    assert done.returncode == 1
    first, hint = done.stderr.splitlines()
    assert first.startswith("gald: ") and "GALD_TRACEBACK=1" in hint
    assert all(text.strip() in first for text in named.split("|"))
    assert listing(place) == before
