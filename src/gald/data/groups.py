"""Groups of images that are not independent: frames of one video, photographs of one place.

`data.groups` says how the path of an image names its group: a regular expression with one group in
parentheses, or `folder` for the folder of the image. The name is stored with the counts of each
image (`gald.metrics.images`), so that intervals can be drawn over groups instead of images.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from gald.run.class_names import unusable

FOLDER = "folder"
_EXAMPLE = "'data.groups=\"([^/_]+)_[^/]*$\"'"  # the name of the file up to its first _
_REMEDY = f"write for example {_EXAMPLE}, data.groups=folder or data.groups=null"


def check_groups(groups: str | None) -> None:
    """Refuse a value of `data.groups` that names no group for any image.

    Raises:
        ValueError: it is neither `folder` nor a regular expression with one group in parentheses.
    """
    if groups in (None, FOLDER):
        return
    if not isinstance(groups, str):
        raise ValueError(f"data.groups is {groups}, which is not text; {_REMEDY}")
    try:
        count = re.compile(groups).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"data.groups is {groups!r}, which is no regular expression ({error}); {_REMEDY}"
        ) from None
    if count != 1:
        raise ValueError(
            f"data.groups is {groups!r}, which has {count} groups in parentheses and must have 1; "
            f"{_REMEDY}, and (?:...) for parentheses without a group"
        )


def groups_of(paths: Sequence[str], groups: str) -> list[str]:
    """Return the name of the group of each image.

    Args:
        paths: relative paths of the images, with `/`.
        groups: value of `data.groups`, not None.

    Raises:
        ValueError: it gives no name for an image, or one that cannot be shown.
    """
    check_groups(groups)
    names = [_group_of(path, groups) for path in paths]
    without = [path for path, name in zip(paths, names, strict=True) if not name]
    if without:
        problem = f"which does not match {len(without)} of {len(paths)} images, first {without[0]}"
        if groups == FOLDER:
            problem = (
                f"but {len(without)} of {len(paths)} images, first {without[0]}, are in no folder "
                "of their own"
            )
        raise ValueError(f"data.groups is {groups!r}, {problem}; {_REMEDY}")
    for path, name in zip(paths, names, strict=True):
        if fault := unusable(name):
            raise ValueError(
                f"data.groups is {groups!r}, and the group of image {path!a} has {fault}; rename "
                "the image, or choose data.groups=null"
            )
    return names


def _group_of(path: str, groups: str) -> str:
    if groups == FOLDER:
        folder = PurePosixPath(path).parent.as_posix()
        return "" if folder == "." else folder
    found = re.search(groups, path)
    return (found[1] or "") if found else ""
