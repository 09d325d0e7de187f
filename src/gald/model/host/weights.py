"""Weights of a part of a host from a file, all or nothing."""

from pathlib import Path

from torch import nn

from gald.run.weight_file import collect_tensors, find_defect, read_weight_file


def load_into(part: nn.Module, source: str, name: str) -> None:
    """Load a file of `torch.save` or safetensors that holds the state dict of a module.

    Args:
        part: the module.
        source: the file.
        name: of the host, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a tensor is missing, left over, of another shape, or not finite.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"host weights not found at {path}; set model.host.weights to a file or null"
        )
    found = collect_tensors(read_weight_file(path))
    ours = part.state_dict()
    missing = [key for key in ours if key not in found and "num_batches_tracked" not in key]
    surplus = [key for key in found if key not in ours]
    wrong = [key for key in found if key in ours and found[key].shape != ours[key].shape]
    for keys, what in ((missing, "has no"), (surplus, "also has"), (wrong, "has another shape of")):
        if keys:
            raise ValueError(
                f"{path} does not fit {name}: it {what} {keys[0]}"
                + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
                + "; set model.host.weights to weights of this network, or null"
            )
    if defect := find_defect(found):
        raise ValueError(
            f"the weights in {path} are useless: {defect}; set model.host.weights to another file, "
            "or null"
        )
    part.load_state_dict(found, strict=False)  # only counters of batches may be missing
