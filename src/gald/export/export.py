"""`gald export RUN --to FILE --format onnx`: a trained network, to be used elsewhere."""

import json
import sys
import tempfile
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.export import ExportedProgram

from gald.cli import Arguments
from gald.export.graph import FullImageNetwork, trace, without_adaptive_pooling
from gald.export.parity import Run, Shape, compare, first_line, random_image
from gald.inference import FullImage
from gald.prediction.predictor import Predictor, load
from gald.run.provenance import versions

Size = tuple[int, int]
FORMATS = ("pretrained", "onnx", "torch")
_AXES = ({0: "batch", 2: "height", 3: "width"},)


def main() -> None:
    """Export what the command line names, and say what was written."""
    parser = Arguments("gald export", description="write a trained network for use elsewhere")
    parser.add_argument(
        "source", metavar="RUN", help="run folder, checkpoint, folder of save_pretrained or hub id"
    )
    parser.add_argument("--to", type=Path, required=True, help="a new file; a folder: pretrained")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="pretrained: safetensors and config.json, for gald.load; onnx: ONNX; torch: a "
        "torch.export program, for torch.export.load(FILE).module()",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of onnx and torch: the only image size that will do (default: any)",
    )
    parser.add_argument("--opset", type=int, help="of onnx: its version (default: torch's)")
    flags = parser.parse_args(sys.argv[1:])
    print(
        export(flags.source, flags.to, flags.format, flags.size and tuple(flags.size), flags.opset)
    )


def export(
    source: str | Path,
    target: Path,
    format: str,
    size: Size | None = None,
    opset: int | None = None,
) -> str:
    """Write a trained network, read it back and compare it with the original; says what it is.

    The file appears whole and verified, or not at all. Class names and palette are inside: in
    ONNX's metadata, in `gald.json` among the extra files of torch.export, in `config.json`.

    `onnx` and `torch` take `image`, uint8 RGB (B, 3, H, W), and give `scores` (B, K, H, W) of the
    whole image in one pass and `labels` (B, H, W), uint8. Batch, height and width are free. A
    network that cannot be freed is refused, and wants a `size`: the GA isa in both, since it fills
    its blocks only where they do not fit and a graph keeps one of the two ways; the LD guided in
    ONNX.

    Args:
        source: as in `gald.load`.
        target: what to write; must not be there.
        format: `pretrained`, `onnx` or `torch`.
        size: height and width of the only images that will do; None is any.
        opset: ONNX operator set; None is torch's choice.

    Raises:
        FileNotFoundError: there is no such network.
        ValueError: the target is there, an option does not belong to the format, onnx is not
            installed, or what was written does not score as the network does.
        OSError: the disk is full or cannot be written.
    """
    target = target.expanduser().absolute()
    if target.exists():
        raise ValueError(f"{target} is already there; choose another name for --to")
    if format == "pretrained" and size is not None:
        raise ValueError("--size belongs to onnx and torch; a pretrained network takes any size")
    if format != "onnx" and opset is not None:
        raise ValueError(f"--opset belongs to onnx; leave it out for {format}")
    if format == "onnx" and not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        raise ValueError("onnx needs more packages; install them with: pip install 'gald[export]'")
    predictor = load(source)
    network = FullImageNetwork(predictor.model).eval()
    say = Console(stderr=True).print
    example, checks = _shapes(network, size, format)
    network(random_image(*example))  # says itself where the size is wrong
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as near:
            whole = Path(near) / target.name
            if format == "pretrained":
                predictor.save_pretrained(whole)
                run: Run = FullImageNetwork(load(whole).model).eval()
            else:
                say(f"traces the network on images of {example[1]}x{example[2]}")
                try:
                    program = trace(network, random_image(*example), fixed=size is not None)
                except Exception as error:
                    raise _unfit(network, format, size, first_line(error)) from error
                about = _about(predictor, size)
                if format == "onnx":
                    run = _write_onnx(program, whole, about, opset, fixed=size is not None)
                else:
                    run = _write_torch(program, whole, about)
            say(f"compares it with the network on {len(checks)} sizes")
            try:
                worst = compare(run, network, checks)
            except ValueError as error:
                raise _unfit(network, format, size, str(error)) from error
            whole.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write {target} ({reason}); nothing was left there") from error
    return _summary(target, predictor, format, size, worst)


def _shapes(network: FullImageNetwork, size: Size | None, format: str) -> tuple[Shape, list[Shape]]:
    """The images to trace with, and those to compare on: batch, height and width.

    Odd sizes, whole strides, and at least the 15 cells a side that the authors' LD needs. Where
    images are too small a torch.export program says so; an ONNX file would not, so it is compared
    on a small one too.
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
    got = onnx.model.opset_imports[""]
    if opset not in (None, got):
        raise ValueError(
            f"torch wrote opset {got} where {opset} was asked for; choose --opset {got}"
        )
    onnx.model.metadata_props.update({key: _text(value) for key, value in about.items()})
    path.write_bytes(onnx.model_proto.SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: [
        torch.from_numpy(output) for output in session.run(None, {"image": image.numpy()})
    ]


def _write_torch(program: ExportedProgram, path: Path, about: dict[str, Any]) -> Run:
    text = json.dumps(about, indent=2, ensure_ascii=False)
    file = BytesIO()  # on a full disk torch's own writer ends the process
    torch.export.save(program, file, extra_files={"gald.json": text})
    path.write_bytes(file.getbuffer())
    return torch.export.load(path).module()


def _about(predictor: Predictor, size: Size | None) -> dict[str, Any]:
    """What a reader of the file must know beyond the shapes."""
    backbone = predictor.model.backbone
    order = "BGR" if backbone.flip else "RGB"
    return {
        "gald": versions()["version/gald"],
        "class_names": predictor.class_names,
        "palette": predictor.palette,
        "size": size or "any",
        "input": "image: uint8 RGB, (batch, 3, height, width), as it is; do not normalise",
        "output": "scores: logits at the image's size; labels: index into class_names",
        "normalisation": {
            "note": f"already inside: ({order} / 255 - mean) / std",
            "mean": backbone.mean.flatten().tolist(),
            "std": backbone.std.flatten().tolist(),
        },
        "model": predictor.config["model"],
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unfit(network: FullImageNetwork, format: str, size: Size | None, reason: str) -> ValueError:
    model = network.model
    parts = f"ga {type(model.ga).__name__}, ld {type(model.ld).__name__}"
    if size is None:
        wanted, remedy = "for images of any size", "give the one size you need: --size 512 1024"
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
        text += f"\nit scores whole images in one pass; the network was judged with {mode}"
    return text
