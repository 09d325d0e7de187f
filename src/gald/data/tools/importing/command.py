"""`gald data import coco|labelme FOLDER`: draw polygons as masks for `data=folder`."""

from pathlib import Path
from typing import Literal

from gald.cli import fail
from gald.run.preemption import INTERRUPTED


def main(
    kind: Literal["coco", "labelme"],
    folder: Path,
    /,
    *,
    to: Path | None = None,
    unlabelled: Literal["background", "void"] = "background",
    images: Path | None = None,
    copy: bool = False,
) -> int:
    """Draw annotations as masks, in the layout that data=folder reads.

    Args:
        kind: coco: json files of COCO, also from CVAT, Roboflow or Label Studio; labelme: json
            files of labelme, one for each image
        folder: json files and images
        to: a new folder (default: FOLDER_masks)
        unlabelled: pixels without annotation: background, a class, or void
        images: folder of the images
        copy: copy the images (default: link them)
    """
    from gald.data.tools.importing.write import import_folder

    try:
        return import_folder(kind, folder, to, unlabelled, images, copy)
    except KeyboardInterrupt:
        fail("interrupted; nothing was written, so repeat the command", INTERRUPTED)
