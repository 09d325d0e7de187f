"""`gald export RUN --to FILE --format FORMAT`: write a network for other programs."""

from pathlib import Path
from typing import Literal

from gald.command_line.app import Trust


def main(
    run: str,
    /,
    *,
    to: Path,
    format: Literal["pretrained", "onnx", "torch"],
    size: tuple[int, int] | None = None,
    opset: int | None = None,
    trust: Trust = (),
) -> None:
    """Write a trained network for other programs, and compare it with the original.

    Args:
        run: run, checkpoint, saved folder, name of the zoo or hub id
        to: a new file, or a new folder for pretrained
        format: pretrained: safetensors and config.json, for gald.load; onnx: ONNX; torch: a
            torch.export program, for torch.export.load(FILE).module()
        size: onnx and torch: HEIGHT WIDTH of the image (default: any size)
        opset: onnx: opset version (default: torch's)
        trust: package with classes of your own that the file may name; repeat for more
    """
    from gald.export.export import export  # imports torch, which takes seconds

    print(export(run, to, format, size, opset, trust))
