"""Where the images and masks of `gald.data.folder` are: found by themselves, or set by keys."""

import dataclasses
from collections.abc import Iterable, Set
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import NamedTuple

from gald.data.dataset import Sample
from gald.data.pairs import reject
from gald.data.reading.files import is_dir, is_file
from gald.data.reading.listing import IMAGE_SUFFIXES, composed, list_files, read_lines
from gald.data.reading.mask import not_png

# Formats of images that are not read.
_NOT_READ = (".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".jp2", ".heic", ".avif", ".npy")
SPLIT = "SPLIT"  # in a path, stands for the name of the split
# Other names of a split, in folders and lists. CVAT writes `default` if a task has no subsets.
NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_LISTED = NAMES | {"train": (*NAMES["train"], "default")}
# Ends of mask names beside, or in place of, the same name as the image.
_MASK_SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_gt", "_seg")


class Layout(NamedTuple):
    """Paths relative to the root, in which `SPLIT` stands for the name of a split.

    Attributes:
        images: folder of the images.
        masks: folder of the masks; it may be the same.
        lists: file with the names of a split, one a line; empty if the folders hold the splits.
    """

    images: str
    masks: str
    lists: str = ""

    def __str__(self) -> str:
        folders = self.images if self.images == self.masks else f"{self.images} and {self.masks}"
        return f"{folders}, listed in {self.lists}" if self.lists else folders

    def at(self, name: str) -> "Layout":
        """Return the layout with the name of a split filled in."""
        return Layout(*(part.replace(SPLIT, name) for part in self))

    def keys(self) -> str:
        """Return the overrides that choose this layout."""
        lists = f" data.lists={self.lists}" if self.lists else ""
        return f"data.images={self.images} data.masks={self.masks}{lists}"


_VOC = "ImageSets/Segmentation/SPLIT.txt"
_SORTED = (  # into splits
    Layout("images/SPLIT", "masks/SPLIT"),
    Layout("SPLIT/images", "SPLIT/masks"),
    Layout("img_dir/SPLIT", "ann_dir/SPLIT"),
    Layout("images/SPLIT", "annotations/SPLIT"),
    Layout("images/SPLIT", "labels/SPLIT"),
    Layout("SPLIT/images", "SPLIT/labels"),
    Layout("SPLIT", "SPLITannot"),
    Layout("SPLIT", "SPLIT_masks"),
    Layout("SPLIT", "SPLIT_labels"),
    Layout("SPLIT", "SPLIT"),
    Layout("JPEGImages", "SegmentationClass", _VOC),
)
_WHOLE = (  # one set of images
    Layout("images", "masks"),
    Layout("imgs", "masks"),
    Layout("images", "annotations"),
    Layout("images", "labels"),
    Layout("img_dir", "ann_dir"),
    Layout("JPEGImages", "SegmentationClass"),
    Layout(".", "."),
)


@dataclass(frozen=True)
class Keys:
    """What the user sets; None is found by itself.

    Attributes:
        images: folder of the images, relative to the root.
        masks: folder of the masks, relative to the root.
        lists: file with the names of a split, relative to the root.
        image_suffix: end of the image names that the mask names lack.
        mask_suffix: end of the mask names that the image names lack.
    """

    images: str | None = None
    masks: str | None = None
    lists: str | None = None
    image_suffix: str = ""
    mask_suffix: str | None = None

    def __post_init__(self) -> None:
        for key, value in dataclasses.asdict(self).items():
            if value is not None and not isinstance(value, str):
                raise ValueError(
                    f"data.{key} is {value}, which is not text; quote it twice: "
                    f"'data.{key}=\"{value}\"'"
                )
        if (self.images is None) != (self.masks is None):
            given, other = ("images", "masks") if self.masks is None else ("masks", "images")
            value = getattr(self, given)
            raise ValueError(
                f"data.{given} is {value} but data.{other} is not set; set both, for example "
                "data.images=images/SPLIT data.masks=masks/SPLIT"
            )
        for key in ("images", "masks", "lists"):
            value = getattr(self, key)
            if value and (Path(value).is_absolute() or ".." in Path(value).parts):
                raise ValueError(
                    f"data.{key} ({value}) leads out of data.root; give a path relative to it, "
                    "or choose the folder above as data.root"
                )

    def layouts(self) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        """Return the layouts to look for: those with splits, and those without."""
        if self.images is not None and self.masks is not None:
            layout = Layout(self.images, self.masks, self.lists or "")
            return ((layout,), ()) if SPLIT in "".join(layout) else ((), (layout,))
        if self.lists:
            listed = tuple(layout._replace(lists=self.lists) for layout in _WHOLE)
            return (listed, ()) if SPLIT in self.lists else ((), listed)
        return _SORTED, _WHOLE


class Place(NamedTuple):
    """Where the images and masks of one split are, and how their names end.

    Attributes:
        layout: the layout that was found.
        name: name of the split in it, e.g. `valid`.
        images: folder of the images.
        masks: folder of the masks.
        listing: file with the names of the split.
        image_suffix: end of the image names that the mask names lack.
        mask_suffix: end of the mask names that the image names lack.
    """

    layout: Layout
    name: str
    images: Path
    masks: Path
    listing: Path | None
    image_suffix: str
    mask_suffix: str

    def __str__(self) -> str:
        image, mask = _name("a", self.image_suffix, ".jpg"), _name("a", self.mask_suffix, ".png")
        return f"{self.layout}, {image} with {mask}"


def find_place(root: Path, split: str, keys: Keys) -> Place | None:
    """Return where the images and masks of a split are, or None if it does not exist.

    The layouts that are sorted into splits come first. If the folder has none of them for any
    split, it may have one set of images, which is `train`.

    Raises:
        ValueError: several layouts, names of the split or suffixes fit.
    """
    by_split, whole = keys.layouts()
    if place := _find(root, split, by_split, keys):
        return place
    if split != "train" or any(_find(root, other, by_split, keys) for other in NAMES):
        return None
    return _find(root, split, whole, keys)


def looked_for(split: str, keys: Keys) -> str:
    """Return the places of a split, for a message."""
    by_split, whole = keys.layouts()
    layouts = [*by_split, *(whole if split == "train" else ())]
    return " or ".join(dict.fromkeys(str(layout.at(split)) for layout in layouts))


def _find(root: Path, split: str, layouts: Iterable[Layout], keys: Keys) -> Place | None:
    """Return the one place of a split among several layouts."""
    found = [place for layout in layouts for place in _places(root, split, layout, keys)]
    if len(found) > 1:  # e.g. labels/train that holds boxes, beside masks/train
        found = [place for place in found if _has_pairs(place)] or found
    if len(found) < 2:
        return found[0] if found else None
    first, second, *_ = found
    if first.layout == second.layout:
        one, other = (place.listing or place.images for place in (first, second))
        raise ValueError(f"{one} and {other} could both be {split}; rename or move one of them")
    raise ValueError(
        f"{split} at {root} could be in {first.layout} or in {second.layout}; add "
        f"{first.layout.keys()} or {second.layout.keys()}"
    )


def _places(root: Path, split: str, layout: Layout, keys: Keys) -> list[Place]:
    """Return the places of a split in one layout: several if it has several names."""
    places = []
    named = SPLIT in "".join(layout)
    names = (_LISTED if layout.lists else NAMES)[split] if named else (split,)
    for name in names:
        images, masks, lists = (root / part for part in layout.at(name))
        if not (is_dir(images) and is_dir(masks)) or (layout.lists and not is_file(lists)):
            continue
        if name == "default" and places:
            continue
        listing = lists if layout.lists else None
        place = Place(layout, name, images, masks, listing, keys.image_suffix, "")
        suffix = _mask_suffix(place, keys)
        if suffix is not None:
            places.append(place._replace(mask_suffix=suffix))
    return places


def _mask_suffix(place: Place, keys: Keys) -> str | None:
    """Return the end of the mask names; None if a shared folder has no pairs.

    Raises:
        ValueError: several ends of the mask names fit.
    """
    shared = place.images == place.masks
    if not shared and keys.mask_suffix is not None:
        return keys.mask_suffix
    suffixes = ("", *_MASK_SUFFIXES) if keys.mask_suffix is None else (keys.mask_suffix,)
    files = _list(place)
    fits = []
    for suffix in suffixes:
        images, masks = _by_name(place._replace(mask_suffix=suffix), *files)
        if images.keys() & masks.keys():
            fits.append(suffix)
            if not shared and not suffix:
                break  # other masks have no image, which is an error of its own
    if len(fits) > 1:
        one, other = (f"data.mask_suffix={suffix or repr('')}" for suffix in fits[:2])
        raise ValueError(
            f"the masks in {place.masks} could be named a{fits[0]}.png or a{fits[1]}.png; add "
            f"{one} or {other}"
        )
    return fits[0] if fits else None if shared else ""


def _has_pairs(place: Place) -> bool:
    images, masks = _by_name(place, *_list(place))
    return bool(images.keys() & masks.keys())


def list_pairs(place: Place) -> list[Sample]:
    """Pair the images and masks of a split by relative path and name, sorted.

    A file without a partner is rejected with `gald.data.pairs.reject`.
    """
    images, masks = _by_name(place, *_list(place), noted=True)
    names = images.keys() | masks.keys()
    if place.listing is not None:
        names = _listed(place.listing, names)
    elif SPLIT in place.layout.images and SPLIT not in place.layout.masks:
        names = images.keys()  # the other masks belong to other splits
    lossy: dict[str, Path] = {}
    if place.images != place.masks and images.keys() - masks.keys():
        lossy = _strip(list_files(place.masks, (".jpg", ".jpeg")), place.masks, place.mask_suffix)
    pairs = []
    for name in sorted(names):
        mask_name = _name(name, place.mask_suffix, ".png")
        image_name = _name(name, place.image_suffix, ".png or .jpg")
        if name in images and name in masks:
            pairs.append(Sample(name.replace("/", "_"), images[name], masks[name]))
        elif name in lossy:
            reject(not_png(lossy[name]))
        elif name in images:
            reject(
                f"image {images[name]} has no mask {mask_name} in {place.masks}; add the mask, "
                "remove the image or set data.mask_suffix"
            )
        elif name in masks and (other := _other_format(place.images, name, place.image_suffix)):
            reject(
                f"image {other} is neither png nor jpg, and no other format is read; save all "
                "images as 8-bit RGB png"
            )
        elif name in masks:
            reject(
                f"mask {masks[name]} has no image {image_name} in {place.images}; add the image, "
                "remove the mask or set data.image_suffix"
            )
        else:
            reject(
                f"{place.listing} names {name}, but there is no {image_name} in {place.images}; "
                "restore image and mask, or delete the line"
            )
    return pairs


def _other_format(folder: Path, name: str, suffix: str) -> Path | None:
    """Return the image of a mask in a format that is not read, as a TIFF."""
    stem = _name(name, suffix, "")
    found = sorted(folder.glob(f"{escape(stem)}.*"))
    return next((path for path in found if path.suffix.lower() in _NOT_READ), None)


def _listed(listing: Path, known: Set[str]) -> set[str]:
    """Return the names in a list; CVAT puts names with spaces in quotes."""
    names: set[str] = set()
    for line in read_lines(listing):
        name = line.strip().strip('"').replace("\\", "/")
        if not name:
            continue
        if name not in known and Path(name).suffix.lower() in IMAGE_SUFFIXES:
            name = Path(name).with_suffix("").as_posix()
        if name in names:
            reject(f"{listing} names {name} twice; delete one of the lines")
        names.add(name)
    return names


def _name(name: str, suffix: str, ending: str) -> str:
    """Return the name of a file; a suffix may include the ending."""
    return f"{name}{suffix}" if _has_ending(suffix) else f"{name}{suffix}{ending}"


def _has_ending(suffix: str) -> bool:
    return suffix.lower().endswith(IMAGE_SUFFIXES)


def _list(place: Place) -> tuple[list[Path], list[Path]]:
    """List the images and the masks of a place; a file of a shared folder can be both."""
    images = list_files(place.images)
    if place.images == place.masks:
        return images, [path for path in images if path.suffix.lower() == ".png"]
    return images, list_files(place.masks, (".png",))


def _by_name(
    place: Place, images: Iterable[Path], masks: Iterable[Path], noted: bool = False
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return images and masks by relative path, without suffix and ending.

    A file in a shared folder belongs to the longer suffix that it ends with; without suffixes a
    png is a mask, and a jpg an image. `noted` rejects files of the same name.
    """
    image_suffix, mask_suffix = place.image_suffix, place.mask_suffix
    if place.images == place.masks:
        masks = list(masks)
        if len(mask_suffix) < len(image_suffix):
            taken = set(_strip(images, place.images, image_suffix).values())
            masks = [path for path in masks if path not in taken]
        else:
            taken = set(_strip(masks, place.masks, mask_suffix).values())
            images = [path for path in images if path not in taken]
    return (
        _strip(images, place.images, image_suffix, noted),
        _strip(masks, place.masks, mask_suffix, noted),
    )


def _strip(
    files: Iterable[Path], folder: Path, suffix: str, noted: bool = False
) -> dict[str, Path]:
    """Return the files that end with a suffix by their path in the folder without it."""
    found: dict[str, Path] = {}
    for path in files:
        place = path.relative_to(folder)
        key = composed((place if _has_ending(suffix) else place.with_suffix("")).as_posix())
        if not key.endswith(suffix):
            continue
        key = key.removesuffix(suffix)
        if key in found and noted:
            reject(f"{found[key]} and {path} have the same name; remove one of them")
        found[key] = path
    return found
