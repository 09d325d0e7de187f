"""Ranges of options of libraries, which declare none in their signatures."""

import inspect
from typing import Annotated, Any, Literal

from gald.options.ranges import (
    Count,
    Finite,
    Fraction,
    Length,
    NotNegative,
    Positive,
    Range,
    Whole,
)

Batches = Whole | Fraction | None  # a number of batches, or a share of all
_LR = Annotated[float, Range(least=0, example=0.01)]
_SHARE = Annotated[float, Range(least=0, below=1, example=0.9)]
_OPTIMIZERS = ("torch.optim.", "timm.optim.")
_OPTIMIZER: dict[str, Any] = {
    "lr": _LR,
    "weight_decay": Annotated[float, Range(least=0, example=5e-4)],
    "momentum": _SHARE,
    "dampening": Annotated[float, Range(least=0, most=1, example=0)],
    "eps": Annotated[float, Range(above=0, example=1e-8)],
    "betas": Annotated[list[_SHARE], Length(2, 2)],
    "alpha": _SHARE,
    "rho": _SHARE,
    # of Muon
    "ns_steps": Count,
    "adjust_lr_fn": Literal["original", "match_rms_adamw", "rms_to_rms"] | None,
    "conv_mode": Literal["flatten", "batched"],
    "algo": Literal["muon", "adamuon"],
    "fallback_lr_scale": NotNegative,
}
_PAIR = Length(2, 2)
_ALBUMENTATIONS: dict[str, Any] = {  # of the transforms in conf/augment
    "p": Fraction,
    "rotate": Finite | Annotated[list[Finite], _PAIR],
    "sigma_limit": NotNegative | Annotated[list[NotNegative], _PAIR],
    "std_range": Annotated[list[Fraction], _PAIR],
    "quality_range": Annotated[list[Annotated[int, Range(least=1, most=100)]], _PAIR],
    "gamma_limit": Positive | Annotated[list[Positive], _PAIR],
    "num_holes_range": Annotated[list[Count], _PAIR],
    "hole_height_range": Annotated[list[NotNegative], _PAIR],
    "hole_width_range": Annotated[list[NotNegative], _PAIR],
    "fill": NotNegative
    | Annotated[list[NotNegative], Length(3, 3)]
    | Literal["random", "random_uniform", "inpaint_telea", "inpaint_ns"],
    "fill_mask": Annotated[int, Range(least=0, most=255, example=255)] | None,
    "fog_coef_range": Annotated[list[Fraction], _PAIR],
    "alpha_coef": Fraction,
    "blur_value": Count,
    "brightness_coefficient": Fraction,
    "brightness_coeff": Positive,
    "snow_point_range": Annotated[list[Fraction], _PAIR],
    "num_shadows_limit": Annotated[list[Count], _PAIR],
    "shadow_intensity_range": Annotated[list[Fraction], _PAIR],
    "src_radius": Count,
}
_TRAINER: dict[str, Any] = {
    "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
    "compile": bool,  # ours, not Lightning's
    "devices": Count | Literal[-1] | str | Annotated[list[Whole], Length(1)],
    "num_nodes": Count,
    "strategy": str,
    "precision": str | int,
    "max_epochs": Annotated[int, Range(least=-1, example=20)] | None,
    "min_epochs": Whole | None,
    "max_steps": Annotated[int, Range(least=-1)] | None,
    "min_steps": Whole | None,
    "gradient_clip_val": NotNegative | None,
    "check_val_every_n_epoch": Count | None,
    "val_check_interval": Count | Fraction | None,
    "log_every_n_steps": Whole | None,
    "num_sanity_val_steps": Annotated[int, Range(least=-1)] | None,
    "limit_train_batches": Batches,
    "limit_val_batches": Batches,
    "limit_test_batches": Batches,
    "overfit_batches": Whole | Fraction | None,
    "fast_dev_run": bool | Whole | None,
    "profiler": Literal["simple", "advanced", "pytorch"] | None,
    "accumulate_grad_batches": Count,
    "deterministic": bool | Literal["warn"] | None,
    "benchmark": bool | None,
    "use_distributed_sampler": bool,
    "enable_model_summary": bool | None,
    "enable_progress_bar": bool | None,
    "sync_batchnorm": bool,
    "default_root_dir": str | None,
}
_MODE = Literal["min", "max"]
_CALLBACKS: dict[str, dict[str, Any]] = {
    "EarlyStopping": {
        "monitor": str,
        "mode": _MODE,
        "patience": Whole,
        "min_delta": NotNegative,
        "stopping_threshold": Finite | None,
        "divergence_threshold": Finite | None,
    },
    "ModelCheckpoint": {
        "dirpath": str | None,
        "mode": _MODE,
        "save_top_k": Annotated[int, Range(least=-1)],
        "every_n_epochs": Whole | None,
        "every_n_train_steps": Whole | None,
    },
}


def declared(build: Any) -> dict[str, Any]:
    """Return hints of arguments that take the place of those in the signature."""
    library, name = str(getattr(build, "__module__", "")), getattr(build, "__name__", "")
    if library.startswith(_OPTIMIZERS):
        parameters = inspect.signature(build).parameters
        found = {key: hint for key, hint in _OPTIMIZER.items() if key in parameters}
        if "betas" in found and isinstance(parameters["betas"].default, tuple):
            count = len(parameters["betas"].default)
            found["betas"] = Annotated[list[_SHARE], Length(count, count)]
        return found
    if library.startswith("albumentations."):
        parameters = inspect.signature(build).parameters
        return {key: hint for key, hint in _ALBUMENTATIONS.items() if key in parameters}
    if _builds_trainer(build):
        return _TRAINER
    if library.startswith(("pytorch_lightning.callbacks.", "gald.callbacks.")):
        return _CALLBACKS.get(name, {})
    return {}


def needs(build: Any) -> tuple[str, ...]:
    """Return arguments that a config must have, although the signature has a default."""
    return ("lr",) if str(getattr(build, "__module__", "")).startswith(_OPTIMIZERS) else ()


def takes_nothing(build: Any) -> bool:
    """Return whether a class accepts no option, although its signature has `**kwargs`."""
    own_init = getattr(getattr(build, "__init__", None), "__qualname__", "")
    return own_init in ("Module.__init__", "Identity.__init__")


def signature_source(build: Any) -> Any:
    """Return the class or function with the signature that a target accepts."""
    if _builds_trainer(build):
        from pytorch_lightning import Trainer

        return Trainer
    return build


def _builds_trainer(build: Any) -> bool:
    return getattr(build, "__name__", "") == "build_trainer"
