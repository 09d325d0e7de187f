"""`gald convert FILE --to FOLDER`: turn a state dict of the authors into a run folder."""

import shlex
from pathlib import Path
from typing import Literal


def main(
    file: Path,
    /,
    *,
    to: Path,
    input: Literal["bgr", "rgb"] | None = None,
) -> None:
    """Convert a state dict of the authors to a run folder, and print how to evaluate it.

    Args:
        file: a .pth of GALD_ or DualSeg_, _res50 or _res101
        to: a new folder
        input: input of its training: bgr in 0..255 minus a mean, or rgb normalised as for ImageNet
            (default: as in the authors' scripts, bgr for GALD and rgb for DualSeg)
    """
    from gald.convert.convert import convert  # imports torch, which takes seconds

    print(convert(file, to, input))
    path = shlex.quote(f"ckpt_path={to}")
    print(f"evaluate it with: gald eval {path} data=cityscapes")
