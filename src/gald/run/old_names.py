"""Conversion of names that earlier versions wrote into checkpoints and results."""

from typing import Any

# Old prefix of a `_target_` -> new prefix. The first match is used, so longer prefixes come first.
TARGETS = {
    "gald.modules.ga.gc.": "gald.model.ga.global_context.",
    "gald.modules.": "gald.model.",
    "gald.models.heads.GALDHead": "gald.model.head.gald.GALDHead",
    "gald.models.heads.LowLevelHead": "gald.model.head.lowlevel.LowLevelHead",
    "gald.models.heads.AuxHead": "gald.model.aux_head.AuxHead",
    "gald.models.": "gald.model.",
    "gald.losses.": "gald.loss.",
    "gald.optim.": "gald.scheduler.",
    "gald.inference.Whole": "gald.inference.whole.FullImage",
    "gald.inference.Slide": "gald.inference.slide.Slide",
    "gald.inference.MultiScaleFlip": "gald.inference.multi_scale.MultiScaleFlip",
    "gald.metrics.boundary_f.AuthorsBoundaryF": (
        "gald.metrics.boundary_f.BoundaryFDecoupleSegNets"
    ),
    "gald.callbacks.metrics_csv.": "gald.logger.metrics_csv.",
    "gald.callbacks.wandb.": "gald.logger.wandb.",
    "gald.callbacks.mlflow.": "gald.logger.mlflow.",
    "gald.callbacks.tensorboard.": "gald.logger.tensorboard.",
}
# New `_target_` -> old key -> (new key, old value -> new value).
OPTIONS: dict[str, dict[str, tuple[str, dict[Any, Any]]]] = {
    "gald.model.backbone.TimmBackbone": {
        "first_block": ("dilate_first_block", {"timm": False, "authors": True}),
    },
    "gald.model.segmentor.Segmentor": {
        "residual": ("add_context_twice", {"figure": False, "code": True}),
        "aux": ("aux_head", {}),
    },
}
# New `_target_` -> options that it did not have, with the values that it had then.
ADDED: dict[str, dict[str, Any]] = {"gald.loss.ohem.OhemCrossEntropy": {"over": "batch"}}
WEIGHTS = {"model.aux.": "model.aux_head."}  # prefixes of keys in a training's state dict
KEYS = {"price/aux/": "cost/aux_head/", "price/": "cost/"}  # prefixes of keys in results.json
RECEIPT_KEYS = {"truth_sha256": "ground_truth_sha256"}


def renew_config(config: Any) -> Any:
    """Copy a configuration (plain data) with old names replaced by current ones."""
    if isinstance(config, list | tuple):
        return [renew_config(value) for value in config]
    if not isinstance(config, dict):
        return config
    renewed = {key: renew_config(value) for key, value in config.items()}
    if isinstance(renewed.get("_target_"), str):
        renewed["_target_"] = _replace_prefix(renewed["_target_"], TARGETS)
        for old, (new, values) in OPTIONS.get(renewed["_target_"], {}).items():
            if old in renewed:
                renewed = {new if key == old else key: value for key, value in renewed.items()}
                value = renewed[new]
                renewed[new] = values.get(value, value) if isinstance(value, str) else value
        renewed = ADDED.get(renewed["_target_"], {}) | renewed
    return renewed


def renew_weights(state: dict[str, Any]) -> dict[str, Any]:
    """Copy the state dict of a training with current key names; its keys begin with `model.`."""
    return {_replace_prefix(key, WEIGHTS): value for key, value in state.items()}


def renew_results(results: dict[str, Any]) -> dict[str, Any]:
    """Copy the content of a results.json with current names, also in its receipts."""
    renewed = {_replace_prefix(key, KEYS): value for key, value in results.items()}
    for key, value in renewed.items():
        if key.endswith("/receipt") and isinstance(value, dict):
            receipt = {RECEIPT_KEYS.get(name, name): entry for name, entry in value.items()}
            renewed[key] = renew_config(receipt)
    return renewed


def _replace_prefix(text: str, prefixes: dict[str, str]) -> str:
    for old, new in prefixes.items():
        if text.startswith(old):
            return new + text.removeprefix(old)
    return text
