"""`gald export RUN --to FILE --format onnx`: write a trained network for use in other programs."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.export import ExportedProgram

from gald.errors import disk_remedy
from gald.export.graph import FullImageNetwork, trace, without_adaptive_pooling
from gald.export.parity import Run, Shape, compare, first_line, random_image
from gald.inference import FullImage
from gald.install.extras import require
from gald.prediction.predictor import Predictor, load
from gald.run.atomic import atomic_file, new_folder
from gald.run.new_folders import refuse_unwritable
from gald.run.provenance import versions

Size = tuple[int, int]
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
OPSETS = 18, 23  # what torch writes, and the newest to which it converts that
MOST_PIXELS = 16384  # of a side
_AXES = ({0: "batch", 2: "height", 3: "width"},)


def export(
    source: str | Path,
    target: Path,
    format: str,
    size: Size | None = None,
    opset: int | None = None,
    trust: Sequence[str] = (),
) -> str:
    """Write a trained network, read it back, compare it with the original; return a summary.

    The file appears complete and verified, or not at all. It contains class names and palette: in
    ONNX's metadata, in `gald.json` among the extra files of torch.export, in `config.json`.

    `onnx` and `torch` take `image`, uint8 RGB (B, 3, H, W), and return `scores` (B, K, H, W) of
    the whole image in one pass and `labels` (B, H, W), uint8. Batch, height and width are dynamic.
    Some networks need a fixed `size` and are refused without one: the GA isa in both formats,
    because it pads its blocks only if they do not fit and a graph contains only one of the two
    branches; the LD guided in ONNX.

    Args:
        source: as in `gald.load`.
        target: file or folder to write; must not exist.
        format: `pretrained`, `onnx` or `torch`.
        size: fixed height and width of the images; None allows any size.
        opset: ONNX operator set; None leaves the choice to torch.
        trust: as in `gald.load`.

    Raises:
        FileNotFoundError: there is no such network.
        ValueError: the target exists, an option does not apply to the format, onnx is not
            installed, or the exported network does not reproduce the scores.
        OSError: the disk is full or cannot be written.
    """
    target = target.expanduser().absolute()
    _check_options(target, format, size, opset)
    predictor = load(source, trust)
    network = FullImageNetwork(predictor.model).eval()
    report = Console(markup=False, emoji=False, stderr=True).print
    example, checks = _shapes(network, size, format)
    try:
        network(random_image(*example))
    except RuntimeError as error:
        raise ValueError(
            f"--size {example[1]} {example[2]} does not suit the network "
            f"({first_line(error)}); choose another"
        ) from error
    try:
        with (new_folder if format == "pretrained" else atomic_file)(target) as partial:
            if format == "pretrained":
                predictor.save_pretrained(partial)
                run: Run = FullImageNetwork(load(partial, trust).model).eval()
            else:
                report(f"tracing the network on images of {example[1]}x{example[2]}")
                try:
                    program = trace(network, random_image(*example), fixed=size is not None)
                except Exception as error:
                    raise _not_exportable(network, format, size, first_line(error)) from error
                about = _about(predictor, size)
                if format == "onnx":
                    run = _write_onnx(program, partial, about, opset, fixed=size is not None)
                else:
                    run = _write_torch(program, partial, about)
            report(f"comparing the export with the network on {len(checks)} sizes")
            try:
                worst = compare(run, network, checks)
            except ValueError as error:
                raise _not_exportable(network, format, size, str(error)) from error
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"cannot write {target} ({reason}), nothing was left there; {disk_remedy(error)} "
            "and try again"
        ) from error
    return _summary(target, predictor, format, size, worst)


def _check_options(target: Path, format: str, size: Size | None, opset: int | None) -> None:
    """Refuse options that do not fit each other, before the network is read."""
    if target.exists():
        raise ValueError(f"{target} already exists; choose another name for --to")
    if format == "pretrained" and size is not None:
        raise ValueError(
            "--size applies to onnx and torch only; leave it out, a pretrained network takes any "
            "size"
        )
    if format != "onnx" and opset is not None:
        raise ValueError(f"--opset applies to onnx only; leave it out for {format}")
    if size is not None and not all(1 <= side <= MOST_PIXELS for side in size):
        raise ValueError(
            f"--size {size[0]} {size[1]} is no height and width from 1 to {MOST_PIXELS} px; choose "
            "for example --size 512 1024"
        )
    if opset is not None and not OPSETS[0] <= opset <= OPSETS[1]:
        raise ValueError(
            f"--opset {opset} is not written by torch, which writes {OPSETS[0]} to {OPSETS[1]}; "
            f"set --opset {OPSETS[0]}, or leave it out"
        )
    suffix = SUFFIXES.get(format)
    if suffix and target.suffix != suffix:
        raise ValueError(
            f"--to {target.name} does not end in {suffix}, by which other programs know this "
            f"format; write --to {target.with_suffix(suffix).name}"
        )
    refuse_unwritable(target.parent, "the folder of --to")
    if format == "onnx":
        require("--format onnx", "export")


def _shapes(network: FullImageNetwork, size: Size | None, format: str) -> tuple[Shape, list[Shape]]:
    """Return the image shape to trace with, and those to compare on: batch, height and width.

    They include odd sizes and multiples of the stride, and at least the 15 cells per side that the
    authors' LD needs. A torch.export program raises an error for images that are too small. An
    ONNX file does not, so it is also compared on a small image.
    """
    if size is not None:
        return (2, *size), [(1, *size), (2, *size)]
    stride = network.model.stride
    u = 5 * stride
    shapes = [(1, 3 * u + 1, 4 * u - 9), (2, 3 * u, 4 * u), (1, 4 * u - 5, 3 * u + 17)]
    small = (1, stride + 1, 2 * stride - 1)
    if format == "onnx" and _accepts(network, small):
        shapes.append(small)
    return (2, 3 * u + 3, 4 * u + 1), shapes


def _accepts(network: FullImageNetwork, shape: Shape) -> bool:
    try:
        network.model.logits(random_image(*shape))
    except ValueError:
        return False
    return True


def _write_onnx(
    program: ExportedProgram, path: Path, about: dict[str, Any], opset: int | None, fixed: bool
) -> Run:
    import onnxruntime

    axes = ({0: "batch"},) if fixed else _AXES
    onnx = torch.onnx.export(
        without_adaptive_pooling(program),
        dynamo=True,
        dynamic_shapes=axes,
        input_names=["image"],
        output_names=["scores", "labels"],
        opset_version=opset,
        verbose=False,
    )
    assert onnx is not None, "dynamo=True returns the program"
    written = onnx.model.opset_imports[""]
    if opset not in (None, written):
        raise ValueError(f"torch wrote opset {written} instead of {opset}; set --opset {written}")
    onnx.model.metadata_props.update({key: _text(value) for key, value in about.items()})
    path.write_bytes(onnx.model_proto.SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: [
        torch.from_numpy(output) for output in session.run(None, {"image": image.numpy()})
    ]


def _write_torch(program: ExportedProgram, path: Path, about: dict[str, Any]) -> Run:
    text = json.dumps(about, indent=2, ensure_ascii=False)
    buffer = BytesIO()  # on a full disk torch's own writer ends the process
    torch.export.save(program, buffer, extra_files={"gald.json": text})
    path.write_bytes(buffer.getbuffer())
    with path.open("rb") as file:  # torch warns about a path that does not end in .pt2
        return torch.export.load(file).module()


def _about(predictor: Predictor, size: Size | None) -> dict[str, Any]:
    """Return the metadata that users of the file need beyond the shapes."""
    normalising: Any = getattr(predictor.model, "backbone", predictor.model)
    order = "BGR" if getattr(normalising, "flip", False) else "RGB"
    return {
        "gald": versions()["version/gald"],
        "class_names": predictor.class_names,
        "palette": predictor.palette,
        "size": size or "any",
        "input": "image: uint8 RGB, (batch, 3, height, width), from 0 to 255; do not normalise",
        "output": "scores: logits at the image's size; labels: index into class_names",
        "normalisation": {
            "note": f"included in the network: ({order} / 255 - mean) / std",
            "mean": normalising.mean.flatten().tolist(),
            "std": normalising.std.flatten().tolist(),
        },
        "model": predictor.config["model"],
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _not_exportable(
    network: FullImageNetwork, format: str, size: Size | None, reason: str
) -> ValueError:
    model = network.model
    parts = f"ga {type(model.ga).__name__}, ld {type(model.ld).__name__}"
    if size is None:
        wanted, remedy = "for images of any size", "fix the image size: --size 512 1024"
    else:
        wanted, remedy = f"for images of {size[0]}x{size[1]}", "choose --format pretrained"
    return ValueError(
        f"this network ({parts}) cannot be exported as {format} {wanted} ({reason}); {remedy}"
    )


def _summary(
    target: Path, predictor: Predictor, format: str, size: Size | None, worst: float
) -> str:
    files = [target] if target.is_file() else [p for p in target.rglob("*") if p.is_file()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    shape = "any size" if size is None else f"{size[0]}x{size[1]} only"
    text = (
        f"{target}: {format}, {len(predictor.class_names)} classes, images of {shape}, "
        f"{megabytes:.1f} MB; scores differ by at most {worst:.0e} of the largest"
    )
    mode = type(predictor.inference).__name__
    if format != "pretrained" and mode != FullImage.__name__:
        text += f"\nit scores whole images in one pass; the network was validated with {mode}"
    precision = predictor.inference.precision
    if format != "pretrained" and precision is not None:
        text += f"\nit computes in 32 bits; the network was validated in {precision}"
    return text
