"""Street-like scenes drawn on the fly: data for the demo, the tests and quick ablations."""

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from gald.data.base import JointTransform, SegmentationDataModule
from gald.data.files import VOID

_SCENE = 3  # keeps this random stream apart from the others that start at the same seed
_SKY, _BUILDING, _ROAD, _PAVEMENT, _VEGETATION, _WATER, _POLE, _SIGN, _PERSON, _VEHICLE = range(10)
_SIGNAL_COLOURS = ((190, 40, 40), (40, 70, 180), (210, 180, 50), (225, 225, 220))


class SyntheticStreets(Dataset):
    """Streets in one-point perspective; a scene is a function of (seed, split, index, size).

    Large regions, poles two or three pixels wide, small signs and persons, vehicles, light that
    changes from scene to scene, texture and noise. The bonnet at the bottom of most scenes is void.

    Some classes look alike from close by, and only context tells them apart:

    - the strip beyond the pavement is vegetation under a clear sky and water under an overcast one,
      in the same colours and texture: the cue is at the other end of the image;
    - road and pavement are asphalt of the same range of greys, told apart by where they lie between
      kerbs and walls;
    - the side of a bus has the walls and windows of a house, and posters on houses the colours and
      shape of signs.

    Everything is drawn by this file; nothing is read, so there is no licence to heed.

    Args:
        split: `train`, `val` or `test`.
        count: number of scenes.
        size: height and width.
        seed: what all scenes are drawn from.

    Shape:
        image: (3, H, W) uint8
        mask: (H, W) uint8, void 255
    """

    class_names: ClassVar[tuple[str, ...]] = (
        "sky",
        "building",
        "road",
        "pavement",
        "vegetation",
        "water",
        "pole",
        "sign",
        "person",
        "vehicle",
    )
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (120, 180, 225),
        (110, 90, 85),
        (95, 85, 110),
        (225, 150, 205),
        (95, 150, 60),
        (30, 95, 165),
        (205, 205, 205),
        (240, 205, 40),
        (220, 50, 60),
        (50, 50, 160),
    )
    num_classes: ClassVar[int] = len(class_names)
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def __init__(
        self, split: str = "train", count: int = 256, size: Sequence[int] = (96, 128), seed: int = 0
    ) -> None:
        if split not in self.splits:
            raise ValueError(f"split ({split}) is unknown; choose one of {', '.join(self.splits)}")
        if len(size) != 2 or min(size) < 32:
            raise ValueError(
                f"size ({list(size)}) must be a height and a width of at least 32; poles and signs "
                "vanish below"
            )
        if count < 1:
            raise ValueError(f"count ({count}) must be at least 1; there is nothing to draw")
        self.split = split
        self.count = count
        self.size = (size[0], size[1])
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(f"index ({index}) is not below the number of scenes ({self.count})")
        key = (_SCENE, self.seed, self.splits.index(self.split), index)
        image, mask = _Painter(self.size, np.random.default_rng(key)).paint()
        return {
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "mask": torch.from_numpy(mask),
            "name": f"{self.split}_{index:04d}",
        }


class _Painter:
    """Draws one scene, far to near, on a map of labels and a map of paints at once.

    Points are (x, y) in parts of width and height. The ground lies below the horizon; the depth of
    a point on it is s = 0 at the horizon and 1 at the lower edge, and things shrink with s. Lines
    on the ground are rays from the vanishing point, named by their x at s = 1.
    """

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.height, self.width = size
        self.rng = rng
        self.labels = np.zeros(size, np.uint8)
        self.paints = np.zeros(size, np.uint8)
        self.table: list[tuple[float, ...]] = []  # of a paint: r, g, b, grain, streaks
        self.horizon = rng.uniform(0.38, 0.52)
        self.vanish = rng.uniform(0.35, 0.65)
        self.clear = bool(rng.random() < 0.5)

    def paint(self) -> tuple[np.ndarray, np.ndarray]:
        """Return image and mask."""
        rng = self.rng
        self.paint_sky()
        road = (rng.uniform(-0.15, 0.2), rng.uniform(0.8, 1.15))
        kerb = (road[0] - rng.uniform(0.2, 0.45), road[1] + rng.uniform(0.2, 0.45))
        edge = (kerb[0] - rng.uniform(0.5, 1.2), kerb[1] + rng.uniform(0.5, 1.2))
        self.paint_ground(road, kerb, edge)
        for side in (0, 1):
            self.paint_houses(edge[side], outward=2 * side - 1)
        standing = [(rng.uniform(0.15, 0.8), self.paint_vehicle) for _ in range(rng.integers(1, 4))]
        standing += [(rng.uniform(0.25, 0.9), self.paint_person) for _ in range(rng.integers(2, 6))]
        standing += [(rng.uniform(0.25, 0.9), self.paint_post) for _ in range(rng.integers(2, 5))]
        standing += [(rng.uniform(0.2, 0.8), self.paint_tree) for _ in range(rng.integers(0, 4))]
        for depth, draw in sorted(standing, key=lambda pair: pair[0]):
            side = int(rng.integers(2))
            if draw == self.paint_vehicle:
                x = rng.uniform(road[0] + 0.2, road[1] - 0.2)
            elif draw == self.paint_tree:
                x = kerb[side] + rng.random() * (edge[side] - kerb[side])
            else:
                x = road[side] + rng.random() * (kerb[side] - road[side])
            draw(x, depth)
        if rng.random() < 0.7:
            paint = self.mix(rng.uniform(15, 60, 3), 2)
            centre = (rng.uniform(0.4, 0.6), 1.0)
            self.ellipse(centre, (rng.uniform(0.25, 0.45), rng.uniform(0.03, 0.08)), paint, VOID)
        return self.expose(), self.labels

    # what stands in a street

    def paint_sky(self) -> None:
        rng = self.rng
        if self.clear:
            warm = rng.random() < 0.3
            colour = (215, 165, 120) if warm else (100, 155, 215)
        else:
            colour = (160, 162, 168)
        base = np.asarray(colour) * rng.uniform(0.8, 1.1) + rng.normal(0, 6, 3)
        self.paints[:] = self.mix(base, 2)
        self.labels[:] = _SKY
        cloud = self.mix(base * (1.15 if self.clear else rng.uniform(0.75, 0.95)), 5)
        for _ in range(rng.integers(1, 4) if self.clear else rng.integers(4, 9)):
            centre = (rng.uniform(0, 1), rng.uniform(0, self.horizon))
            self.ellipse(centre, (rng.uniform(0.06, 0.2), rng.uniform(0.01, 0.05)), cloud, _SKY)
        if self.clear and rng.random() < 0.6:
            centre = (self.vanish + rng.uniform(-0.2, 0.2), rng.uniform(0.05, self.horizon - 0.15))
            self.ellipse(centre, (0.03, 0.04), self.mix((255, 250, 215), 0), _SKY)

    def paint_ground(
        self, road: tuple[float, float], kerb: tuple[float, float], edge: tuple[float, float]
    ) -> None:
        rng = self.rng
        skyline = np.sort(rng.uniform(0, 1, 12))
        far = self.mix(rng.uniform(70, 150, 3) * 0.3 + 75, 4)
        label = _BUILDING if rng.random() < 0.6 else _VEGETATION
        if label == _VEGETATION:
            far = self.mix(self.green(), 14)
        for x in skyline:
            top = self.horizon - rng.uniform(0.02, 0.1)
            self.box((x - 0.06, top), (x + 0.06, self.horizon + 0.02), far, label)
        strip = self.mix(
            np.array([62, 92, 72]) * rng.uniform(0.7, 1.3) + rng.normal(0, 6, 3), 6, 14
        )
        self.box((0, self.horizon), (1, 1), strip, _VEGETATION if self.clear else _WATER)
        greys = rng.uniform(75, 155, 2)
        if abs(greys[0] - greys[1]) < 14:  # two surfaces that a person can tell apart in one scene
            greys[1] += 22
        pavement, asphalt, line = (
            self.mix(grey + rng.normal(0, 4, 3), grain)
            for grey, grain in ((greys[0], 7), (greys[1], 7), (rng.uniform(170, 215), 4))
        )
        self.wedge(*kerb, pavement, _PAVEMENT)
        self.wedge(road[0] - 0.02, road[1] + 0.02, line, _PAVEMENT)
        self.wedge(*road, asphalt, _ROAD)
        middle = (road[0] + road[1]) / 2
        near = 1.0
        while near > 0.08:  # dashes of the lane mark
            shape = [
                self.ground(middle + dx, s) for s in (near, near * 0.75) for dx in (-0.015, 0.015)
            ]
            self.polygon([shape[0], shape[1], shape[3], shape[2]], line, _ROAD)
            near *= 0.55

    def paint_houses(self, ray: float, outward: int) -> None:
        rng = self.rng
        far, tall = 0.09, rng.uniform(1.0, 2.2)
        while far < 1.2:
            near = far * rng.uniform(1.5, 2.4)
            kind = rng.random()
            if kind < 0.75:
                height = tall * rng.uniform(0.6, 1.4)
                quad = np.array(
                    [
                        self.ground(ray, far, height),
                        self.ground(ray, near, height),
                        self.ground(ray, near),
                        self.ground(ray, far),
                    ]
                )
                # the house hides what lies behind it, beyond its front
                side = self.mix(self.wall() * 0.7, 6)
                beyond = (-0.1, 1.1)[outward > 0]
                top, foot = quad[0], quad[3]
                self.box(
                    (min(beyond, top[0]), top[1]), (max(beyond, top[0]), foot[1]), side, _BUILDING
                )
                self.front(quad, _BUILDING, posters=True)
            elif kind < 0.9:
                for s in np.linspace(far, near, 3):
                    self.crown(self.ground(ray, s, 0.25), 0.3 * s, self.mix(self.green(), 16))
            far = near

    def paint_vehicle(self, ray: float, depth: float) -> None:
        rng = self.rng
        x, foot = self.ground(ray, depth)
        bus = rng.random() < 0.35
        wide, high = (0.42, 0.62) if bus else (0.34, 0.24)
        w, h = wide * depth * rng.uniform(0.8, 1.2) / 2, high * depth * rng.uniform(0.85, 1.15)
        if bus:
            corners = [(x - w, foot - h), (x + w, foot - h), (x + w, foot), (x - w, foot)]
            self.front(np.array(corners), _VEHICLE, posters=False)
        else:
            body = self.mix(self.vivid(), 3)
            self.box((x - w, foot - 0.6 * h), (x + w, foot), body, _VEHICLE)
            cabin = [(x - 0.8 * w, foot - 0.6 * h), (x - 0.5 * w, foot - h)]
            cabin += [(x + 0.5 * w, foot - h), (x + 0.8 * w, foot - 0.6 * h)]
            self.polygon(cabin, self.mix(rng.uniform(30, 90, 3), 3), _VEHICLE)
        rubber = self.mix((25, 25, 28), 2)
        for dx in (-0.65, 0.65):
            radius = 0.045 * depth * (1.3 if bus else 1.0)
            self.ellipse((x + dx * w, foot), (radius, radius * self.aspect), rubber, _VEHICLE)

    def paint_person(self, ray: float, depth: float) -> None:
        x, foot = self.ground(ray, depth)
        h = 0.34 * max(depth, 0.35) * self.rng.uniform(0.85, 1.1)
        w = 0.13 * h / self.aspect * 1.4
        legs, coat = self.mix(self.rng.uniform(20, 90, 3), 3), self.mix(self.vivid(), 4)
        skin = self.mix(np.array([205, 160, 130]) * self.rng.uniform(0.45, 1.1), 2)
        self.box((x - 0.8 * w, foot - 0.5 * h), (x + 0.8 * w, foot), legs, _PERSON)
        self.ellipse((x, foot - 0.6 * h), (1.2 * w, 0.25 * h), coat, _PERSON)
        self.ellipse((x, foot - 0.9 * h), (0.7 * w, 0.1 * h), skin, _PERSON)

    def paint_post(self, ray: float, depth: float) -> None:
        rng = self.rng
        x, foot = self.ground(ray, depth)
        thick = max(2, round(3 * depth * self.width / 128)) / self.width
        metal = self.mix(rng.uniform(50, 170) + rng.normal(0, 6, 3), 3)
        sign = rng.random() < 0.55
        h = (0.55 if sign else 1.1) * max(depth, 0.4) * rng.uniform(0.8, 1.2)
        self.box((x, foot - h), (x + thick, foot), metal, _POLE)
        if not sign:
            arm = 0.12 * depth * (1 if x < self.vanish else -1)
            left, right = sorted((x, x + arm))
            self.box((left, foot - h), (right, foot - h + 2 / self.height), metal, _POLE)
            return
        paint = self.mix(_SIGNAL_COLOURS[rng.integers(len(_SIGNAL_COLOURS))], 3)
        r = 0.075 * max(depth, 0.5)
        cx, cy = x + thick / 2, foot - h
        tall = r * self.aspect
        match rng.integers(3):
            case 0:
                self.ellipse((cx, cy), (r, tall), paint, _SIGN)
            case 1:
                self.box((cx - r, cy - tall), (cx + r, cy + tall), paint, _SIGN)
            case _:
                corners = [(cx, cy - tall), (cx + r, cy + tall), (cx - r, cy + tall)]
                self.polygon(corners, paint, _SIGN)

    def paint_tree(self, ray: float, depth: float) -> None:
        x, foot = self.ground(ray, depth)
        h = 0.55 * depth * self.rng.uniform(0.8, 1.3)
        bark = self.mix(np.array([85, 65, 50]) * self.rng.uniform(0.7, 1.2), 6)
        w = 0.025 * depth
        self.box((x - w, foot - h), (x + w, foot), bark, _VEGETATION)
        self.crown((x, foot - h), 0.3 * depth, self.mix(self.green(), 16))

    # parts of things

    def front(self, quad: np.ndarray, label: int, posters: bool) -> None:
        """A wall with rows of windows; quad is top left, top right, bottom right, bottom left."""
        rng = self.rng
        self.polygon(quad, self.mix(self.wall(), 6), label)
        rows, columns = int(rng.integers(2, 5)), int(rng.integers(3, 6))
        glass = self.mix(rng.uniform(25, 80) + rng.normal(0, 8, 3), 4)
        v, u = np.divmod(np.arange(rows * columns), columns)
        left, right = (u + 0.25) / columns, (u + 0.75) / columns
        top, bottom = (v + 0.25) / (rows + 0.5), (v + 0.8) / (rows + 0.5)
        corners = np.stack([left, top, right, top, right, bottom, left, bottom], 1).reshape(
            -1, 4, 2
        )
        self.polygons(_inside(quad, corners), glass, label)
        if posters and rng.random() < 0.5:
            a, b = rng.uniform(0.1, 0.6), rng.uniform(0.5, 0.75)
            spot = np.array([[a, b], [a + 0.25, b], [a + 0.25, b + 0.15], [a, b + 0.15]])
            paint = self.mix(_SIGNAL_COLOURS[rng.integers(len(_SIGNAL_COLOURS))], 3)
            self.polygon(_inside(quad, spot), paint, label)

    def crown(self, centre: tuple[float, float], radius: float, paint: int) -> None:
        for dx, dy in self.rng.uniform(-0.6, 0.6, (5, 2)):
            spot = (centre[0] + dx * radius, centre[1] + dy * radius)
            self.ellipse(spot, (0.6 * radius, 0.6 * radius * self.aspect), paint, _VEGETATION)

    def wall(self) -> np.ndarray:
        base = ((165, 110, 85), (190, 175, 145), (140, 140, 145), (120, 85, 75))
        return np.asarray(base[self.rng.integers(4)]) * self.rng.uniform(0.7, 1.2)

    def green(self) -> np.ndarray:
        return np.array([70, 105, 55]) * self.rng.uniform(0.6, 1.3) + self.rng.normal(0, 8, 3)

    def vivid(self) -> np.ndarray:
        return self.rng.uniform(25, 215, 3)

    # brushes

    @property
    def aspect(self) -> float:
        return self.width / self.height

    def ground(self, ray: float, depth: float, above: float = 0.0) -> tuple[float, float]:
        """The point of a ray at a depth, or the one `above` it."""
        y = self.horizon + depth * (1 - self.horizon - above)
        return self.vanish + (ray - self.vanish) * depth, y

    def mix(self, colour: np.ndarray | Sequence[float], grain: float, streaks: float = 0) -> int:
        """Prepare a paint; grain is fine noise, streaks are horizontal."""
        self.table.append((*colour, grain, streaks))
        return len(self.table) - 1

    def polygons(self, shapes: np.ndarray, paint: int, label: int) -> None:
        scale = np.array([self.width, self.height])
        pixels = list(np.rint(shapes * scale - 0.5).astype(np.int32))
        cv2.fillPoly(self.paints, pixels, paint)
        cv2.fillPoly(self.labels, pixels, label)

    def polygon(
        self, points: np.ndarray | Sequence[tuple[float, float]], paint: int, label: int
    ) -> None:
        self.polygons(np.asarray(points)[None], paint, label)

    def box(
        self, corner: tuple[float, float], opposite: tuple[float, float], paint: int, label: int
    ) -> None:
        left, right = (max(0, round(x * self.width)) for x in (corner[0], opposite[0]))
        top, bottom = (max(0, round(y * self.height)) for y in (corner[1], opposite[1]))
        self.paints[top:bottom, left:right] = paint
        self.labels[top:bottom, left:right] = label

    def wedge(self, left: float, right: float, paint: int, label: int) -> None:
        """The ground between two rays."""
        apex = (self.vanish, self.horizon)
        self.polygon([apex, self.ground(right, 1.5), self.ground(left, 1.5)], paint, label)

    def ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], paint: int, label: int
    ) -> None:
        at = (round(centre[0] * self.width), round(centre[1] * self.height))
        axes = (max(1, round(radii[0] * self.width)), max(1, round(radii[1] * self.height)))
        cv2.ellipse(self.paints, at, axes, 0, 0, 360, paint, -1)
        cv2.ellipse(self.labels, at, axes, 0, 0, 360, label, -1)

    def expose(self) -> np.ndarray:
        """Turn paints into a photograph: texture, light, blur and sensor noise."""
        rng, (height, width) = self.rng, self.paints.shape
        table = np.take(np.asarray(self.table, np.float32), self.paints, axis=0)  # (H, W, 5)
        grain = rng.standard_normal((height, width), np.float32)
        streaks = cv2.resize(
            rng.standard_normal((height, max(2, width // 12)), np.float32), (width, height)
        )
        image = table[..., :3] + (table[..., 3] * grain + table[..., 4] * streaks)[..., None]
        # the light says nothing of the sky's kind, or the strip's class could be read off its shade
        light = rng.uniform(0.55, 1.25) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
        left, right = rng.uniform(0.8, 1.2, 2)
        slope = np.linspace(left, right, width, dtype=np.float32)[None, :, None]
        image = cv2.GaussianBlur(image * light.astype(np.float32) * slope, (3, 3), 0.6)
        image += rng.standard_normal((height, width, 3), np.float32) * rng.uniform(1, 6)
        return np.clip(image, 0, 255).astype(np.uint8)


def _inside(quad: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Points of a quad by their bilinear coordinates (..., 2) in [0, 1]."""
    u, v = at[..., :1], at[..., 1:]
    top = quad[0] * (1 - u) + quad[1] * u
    bottom = quad[3] * (1 - u) + quad[2] * u
    return top * (1 - v) + bottom * v


class SyntheticDataModule(SegmentationDataModule):
    """Synthetic streets as batches: three disjoint sets of scenes from one seed.

    The scenes have a seed of their own, so that runs with different seeds see the same data.

    Args:
        size: height and width of the scenes.
        train_count: number of training scenes.
        val_count: number of validation scenes.
        test_count: number of test scenes.
        scene_seed: what the scenes are drawn from.
        train_transform: as in `SegmentationDataModule`.
        global_batch_size: as in `SegmentationDataModule`.
        micro_batch_size: as in `SegmentationDataModule`.
        eval_batch_size: as in `SegmentationDataModule`.
        num_workers: as in `SegmentationDataModule`.
        seed: as in `SegmentationDataModule`.
    """

    dataset_class = SyntheticStreets

    def __init__(
        self,
        size: Sequence[int] = (96, 128),
        train_count: int = 256,
        val_count: int = 64,
        test_count: int = 64,
        scene_seed: int = 0,
        train_transform: JointTransform | None = None,
        global_batch_size: int = 8,
        micro_batch_size: int | None = None,
        eval_batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(
            train_transform,
            global_batch_size,
            micro_batch_size,
            eval_batch_size,
            num_workers,
            seed,
        )
        self.size = size
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        self.scene_seed = scene_seed

    def make_dataset(self, split: str) -> SyntheticStreets:
        """Draw one split."""
        return SyntheticStreets(split, self.counts[split], self.size, self.scene_seed)
