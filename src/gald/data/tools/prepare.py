"""`gald data prepare NAME`: downloads a dataset, or prints how to get it."""

import shlex
from inspect import cleandoc
from pathlib import Path

from gald.data.dataset import SegmentationDataset
from gald.data.tools.download import download, end_killed, extract


def prepare(dataset_class: type[SegmentationDataset], name: str, root: Path) -> None:
    """Put a dataset into a folder, or print how to, and print the command to run next.

    Nothing is downloaded if the files that the dataset requires are there already.

    Args:
        dataset_class: names the downloads, the required files and the instructions.
        name: its name in `data=NAME`.
        root: the dataset's folder.

    Raises:
        ValueError: the folder is a file.
        DownloadError: a file could not be downloaded or extracted.
    """
    root = root.expanduser()
    if root.exists() and not root.is_dir():
        raise ValueError(f"data.root={root} is a file; name a folder, with data.root=FOLDER")
    for file in dataset_class.downloads:
        if file.folder:
            end_killed(root / file.name, root / file.folder)
    # "Pascal Context, 59 classes" and "Pascal Context, 60 classes" are the same files
    title = dataset_class.title.partition(",")[0]
    if _is_complete(dataset_class, root):
        print(f"{title} is already at {root}")
    elif dataset_class.downloads:
        print(f"{title}, licence: {dataset_class.licence}", flush=True)
        _download(dataset_class, root)
        print(f"{title} is at {root}")
    else:
        print(_fill(dataset_class, title, root))
    print("next: gald data verify", name, shlex.quote(f"data.root={root}"))


def _is_complete(dataset_class: type[SegmentationDataset], root: Path) -> bool:
    """Return whether one path of each group in `required` exists."""
    groups = dataset_class.required
    return bool(groups) and all(any((root / path).exists() for path in group) for group in groups)


def _download(dataset_class: type[SegmentationDataset], root: Path) -> None:
    for file in dataset_class.downloads:
        path, folder = root / file.name, root / file.folder
        if file.folder and folder.exists():
            continue
        print(f"fetching {file.url} ({file.size}) to {path}", flush=True)
        download(file.url, path, file.digest)
        if file.folder:
            print(f"extracting {path} to {folder}", flush=True)
            extract(path, folder, top=file.folder, keep=False)


def _fill(dataset_class: type[SegmentationDataset], title: str, root: Path) -> str:
    """Fill in the placeholders of the instructions; other braces stay."""
    values = {
        "title": title,
        "licence": dataset_class.licence or "ask its owners",
        "url": dataset_class.url or "its owners",
        "class": f"{dataset_class.__module__}.{dataset_class.__qualname__}",
        "docstring": cleandoc(dataset_class.__doc__ or ""),
        "quoted_root": shlex.quote(str(root)),
        "root": str(root),
    }
    text = dataset_class.instructions
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    return text.rstrip()
