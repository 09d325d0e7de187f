"""Painter of one synthetic street, from far to near."""

from collections.abc import Sequence

import cv2
import numpy as np

from gald.data.labels import VOID

_SKY, _BUILDING, _ROAD, _PAVEMENT, _VEGETATION, _WATER, _POLE, _SIGN, _PERSON, _VEHICLE = range(10)
_SIGNAL_COLOURS = ((190, 40, 40), (40, 70, 180), (210, 180, 50), (225, 225, 220))


class StreetPainter:
    """Painter that draws one scene, from far to near, on a label map and a map of paints.

    Points are (x, y) as fractions of width and height. The ground lies below the horizon; the depth
    of a point on it is s = 0 at the horizon and s = 1 at the lower edge, and sizes scale with s.
    Lines on the ground are rays from the vanishing point, identified by their x at s = 1.
    """

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.height, self.width = size
        self.rng = rng
        self.labels = np.zeros(size, np.uint8)
        self.paints = np.zeros(size, np.uint8)
        self.table: list[tuple[float, ...]] = []  # r, g, b, grain, streaks of each paint
        self.horizon = rng.uniform(0.38, 0.52)
        self.vanish = rng.uniform(0.35, 0.65)
        self.clear = bool(rng.random() < 0.5)

    def paint(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw the scene; return image and mask."""
        rng = self.rng
        self._paint_sky()
        road = (rng.uniform(-0.15, 0.2), rng.uniform(0.8, 1.15))
        kerb = (road[0] - rng.uniform(0.2, 0.45), road[1] + rng.uniform(0.2, 0.45))
        edge = (kerb[0] - rng.uniform(0.5, 1.2), kerb[1] + rng.uniform(0.5, 1.2))
        self._paint_ground(road, kerb, edge)
        for side in (0, 1):
            self._paint_houses(edge[side], outward=2 * side - 1)
        standing = [
            (rng.uniform(0.15, 0.8), self._paint_vehicle) for _ in range(rng.integers(1, 4))
        ]
        standing += [
            (rng.uniform(0.25, 0.9), self._paint_person) for _ in range(rng.integers(2, 6))
        ]
        standing += [(rng.uniform(0.25, 0.9), self._paint_post) for _ in range(rng.integers(2, 5))]
        standing += [(rng.uniform(0.2, 0.8), self._paint_tree) for _ in range(rng.integers(0, 4))]
        for depth, draw in sorted(standing, key=lambda pair: pair[0]):
            side = int(rng.integers(2))
            if draw == self._paint_vehicle:
                x = rng.uniform(road[0] + 0.2, road[1] - 0.2)
            elif draw == self._paint_tree:
                x = kerb[side] + rng.random() * (edge[side] - kerb[side])
            else:
                x = road[side] + rng.random() * (kerb[side] - road[side])
            draw(x, depth)
        if rng.random() < 0.7:
            paint = self._mix(rng.uniform(15, 60, 3), 2)
            centre = (rng.uniform(0.4, 0.6), 1.0)
            self._ellipse(centre, (rng.uniform(0.25, 0.45), rng.uniform(0.03, 0.08)), paint, VOID)
        return self._expose(), self.labels

    # objects of a street

    def _paint_sky(self) -> None:
        rng = self.rng
        if self.clear:
            warm = rng.random() < 0.3
            colour = (215, 165, 120) if warm else (100, 155, 215)
        else:
            colour = (160, 162, 168)
        base = np.asarray(colour) * rng.uniform(0.8, 1.1) + rng.normal(0, 6, 3)
        self.paints[:] = self._mix(base, 2)
        self.labels[:] = _SKY
        cloud = self._mix(base * (1.15 if self.clear else rng.uniform(0.75, 0.95)), 5)
        for _ in range(rng.integers(1, 4) if self.clear else rng.integers(4, 9)):
            centre = (rng.uniform(0, 1), rng.uniform(0, self.horizon))
            self._ellipse(centre, (rng.uniform(0.06, 0.2), rng.uniform(0.01, 0.05)), cloud, _SKY)
        if self.clear and rng.random() < 0.6:
            centre = (self.vanish + rng.uniform(-0.2, 0.2), rng.uniform(0.05, self.horizon - 0.15))
            self._ellipse(centre, (0.03, 0.04), self._mix((255, 250, 215), 0), _SKY)

    def _paint_ground(
        self, road: tuple[float, float], kerb: tuple[float, float], edge: tuple[float, float]
    ) -> None:
        rng = self.rng
        skyline = np.sort(rng.uniform(0, 1, 12))
        far = self._mix(rng.uniform(70, 150, 3) * 0.3 + 75, 4)
        label = _BUILDING if rng.random() < 0.6 else _VEGETATION
        if label == _VEGETATION:
            far = self._mix(self._green(), 14)
        for x in skyline:
            top = self.horizon - rng.uniform(0.02, 0.1)
            self._box((x - 0.06, top), (x + 0.06, self.horizon + 0.02), far, label)
        strip = self._mix(
            np.array([62, 92, 72]) * rng.uniform(0.7, 1.3) + rng.normal(0, 6, 3), 6, 14
        )
        self._box((0, self.horizon), (1, 1), strip, _VEGETATION if self.clear else _WATER)
        greys = rng.uniform(75, 155, 2)
        if abs(greys[0] - greys[1]) < 14:  # keep the two surfaces distinguishable to a person
            greys[1] += 22
        pavement, asphalt, line = (
            self._mix(grey + rng.normal(0, 4, 3), grain)
            for grey, grain in ((greys[0], 7), (greys[1], 7), (rng.uniform(170, 215), 4))
        )
        self._wedge(*kerb, pavement, _PAVEMENT)
        self._wedge(road[0] - 0.02, road[1] + 0.02, line, _PAVEMENT)
        self._wedge(*road, asphalt, _ROAD)
        middle = (road[0] + road[1]) / 2
        near = 1.0
        while near > 0.08:  # dashes of the lane marking
            shape = [
                self._ground(middle + dx, s) for s in (near, near * 0.75) for dx in (-0.015, 0.015)
            ]
            self._polygon([shape[0], shape[1], shape[3], shape[2]], line, _ROAD)
            near *= 0.55

    def _paint_houses(self, ray: float, outward: int) -> None:
        rng = self.rng
        far, tall = 0.09, rng.uniform(1.0, 2.2)
        while far < 1.2:
            near = far * rng.uniform(1.5, 2.4)
            kind = rng.random()
            if kind < 0.75:
                height = tall * rng.uniform(0.6, 1.4)
                quad = np.array(
                    [
                        self._ground(ray, far, height),
                        self._ground(ray, near, height),
                        self._ground(ray, near),
                        self._ground(ray, far),
                    ]
                )
                # side wall, which covers everything behind the house
                side = self._mix(self._wall() * 0.7, 6)
                beyond = (-0.1, 1.1)[outward > 0]
                top, foot = quad[0], quad[3]
                self._box(
                    (min(beyond, top[0]), top[1]), (max(beyond, top[0]), foot[1]), side, _BUILDING
                )
                self._front(quad, _BUILDING, posters=True)
            elif kind < 0.9:
                for s in np.linspace(far, near, 3):
                    self._crown(self._ground(ray, s, 0.25), 0.3 * s, self._mix(self._green(), 16))
            far = near

    def _paint_vehicle(self, ray: float, depth: float) -> None:
        rng = self.rng
        x, foot = self._ground(ray, depth)
        bus = rng.random() < 0.35
        wide, high = (0.42, 0.62) if bus else (0.34, 0.24)
        w, h = wide * depth * rng.uniform(0.8, 1.2) / 2, high * depth * rng.uniform(0.85, 1.15)
        if bus:
            corners = [(x - w, foot - h), (x + w, foot - h), (x + w, foot), (x - w, foot)]
            self._front(np.array(corners), _VEHICLE, posters=False)
        else:
            body = self._mix(self._vivid(), 3)
            self._box((x - w, foot - 0.6 * h), (x + w, foot), body, _VEHICLE)
            cabin = [(x - 0.8 * w, foot - 0.6 * h), (x - 0.5 * w, foot - h)]
            cabin += [(x + 0.5 * w, foot - h), (x + 0.8 * w, foot - 0.6 * h)]
            self._polygon(cabin, self._mix(rng.uniform(30, 90, 3), 3), _VEHICLE)
        rubber = self._mix((25, 25, 28), 2)
        for dx in (-0.65, 0.65):
            radius = 0.045 * depth * (1.3 if bus else 1.0)
            self._ellipse((x + dx * w, foot), (radius, radius * self._aspect), rubber, _VEHICLE)

    def _paint_person(self, ray: float, depth: float) -> None:
        x, foot = self._ground(ray, depth)
        h = 0.34 * max(depth, 0.35) * self.rng.uniform(0.85, 1.1)
        w = 0.13 * h / self._aspect * 1.4
        legs, coat = self._mix(self.rng.uniform(20, 90, 3), 3), self._mix(self._vivid(), 4)
        skin = self._mix(np.array([205, 160, 130]) * self.rng.uniform(0.45, 1.1), 2)
        self._box((x - 0.8 * w, foot - 0.5 * h), (x + 0.8 * w, foot), legs, _PERSON)
        self._ellipse((x, foot - 0.6 * h), (1.2 * w, 0.25 * h), coat, _PERSON)
        self._ellipse((x, foot - 0.9 * h), (0.7 * w, 0.1 * h), skin, _PERSON)

    def _paint_post(self, ray: float, depth: float) -> None:
        rng = self.rng
        x, foot = self._ground(ray, depth)
        thick = max(2, round(3 * depth * self.width / 128)) / self.width
        metal = self._mix(rng.uniform(50, 170) + rng.normal(0, 6, 3), 3)
        sign = rng.random() < 0.55
        h = (0.55 if sign else 1.1) * max(depth, 0.4) * rng.uniform(0.8, 1.2)
        self._box((x, foot - h), (x + thick, foot), metal, _POLE)
        if not sign:
            arm = 0.12 * depth * (1 if x < self.vanish else -1)
            left, right = sorted((x, x + arm))
            self._box((left, foot - h), (right, foot - h + 2 / self.height), metal, _POLE)
            return
        paint = self._mix(_SIGNAL_COLOURS[rng.integers(len(_SIGNAL_COLOURS))], 3)
        r = 0.075 * max(depth, 0.5)
        cx, cy = x + thick / 2, foot - h
        tall = r * self._aspect
        match rng.integers(3):
            case 0:
                self._ellipse((cx, cy), (r, tall), paint, _SIGN)
            case 1:
                self._box((cx - r, cy - tall), (cx + r, cy + tall), paint, _SIGN)
            case _:
                corners = [(cx, cy - tall), (cx + r, cy + tall), (cx - r, cy + tall)]
                self._polygon(corners, paint, _SIGN)

    def _paint_tree(self, ray: float, depth: float) -> None:
        x, foot = self._ground(ray, depth)
        h = 0.55 * depth * self.rng.uniform(0.8, 1.3)
        bark = self._mix(np.array([85, 65, 50]) * self.rng.uniform(0.7, 1.2), 6)
        w = 0.025 * depth
        self._box((x - w, foot - h), (x + w, foot), bark, _VEGETATION)
        self._crown((x, foot - h), 0.3 * depth, self._mix(self._green(), 16))

    # parts of objects

    def _front(self, quad: np.ndarray, label: int, posters: bool) -> None:
        """Draw a wall with windows; quad is top left, top right, bottom right, bottom left."""
        rng = self.rng
        self._polygon(quad, self._mix(self._wall(), 6), label)
        rows, columns = int(rng.integers(2, 5)), int(rng.integers(3, 6))
        glass = self._mix(rng.uniform(25, 80) + rng.normal(0, 8, 3), 4)
        v, u = np.divmod(np.arange(rows * columns), columns)
        left, right = (u + 0.25) / columns, (u + 0.75) / columns
        top, bottom = (v + 0.25) / (rows + 0.5), (v + 0.8) / (rows + 0.5)
        corners = np.stack([left, top, right, top, right, bottom, left, bottom], 1).reshape(
            -1, 4, 2
        )
        self._polygons(_inside(quad, corners), glass, label)
        if posters and rng.random() < 0.5:
            a, b = rng.uniform(0.1, 0.6), rng.uniform(0.5, 0.75)
            spot = np.array([[a, b], [a + 0.25, b], [a + 0.25, b + 0.15], [a, b + 0.15]])
            paint = self._mix(_SIGNAL_COLOURS[rng.integers(len(_SIGNAL_COLOURS))], 3)
            self._polygon(_inside(quad, spot), paint, label)

    def _crown(self, centre: tuple[float, float], radius: float, paint: int) -> None:
        for dx, dy in self.rng.uniform(-0.6, 0.6, (5, 2)):
            spot = (centre[0] + dx * radius, centre[1] + dy * radius)
            self._ellipse(spot, (0.6 * radius, 0.6 * radius * self._aspect), paint, _VEGETATION)

    def _wall(self) -> np.ndarray:
        base = ((165, 110, 85), (190, 175, 145), (140, 140, 145), (120, 85, 75))
        return np.asarray(base[self.rng.integers(4)]) * self.rng.uniform(0.7, 1.2)

    def _green(self) -> np.ndarray:
        return np.array([70, 105, 55]) * self.rng.uniform(0.6, 1.3) + self.rng.normal(0, 8, 3)

    def _vivid(self) -> np.ndarray:
        return self.rng.uniform(25, 215, 3)

    # drawing primitives

    @property
    def _aspect(self) -> float:
        return self.width / self.height

    def _ground(self, ray: float, depth: float, above: float = 0.0) -> tuple[float, float]:
        """Return the point of a ray at a depth, or the point at height `above` it."""
        y = self.horizon + depth * (1 - self.horizon - above)
        return self.vanish + (ray - self.vanish) * depth, y

    def _mix(self, colour: np.ndarray | Sequence[float], grain: float, streaks: float = 0) -> int:
        """Add a paint and return its index; grain is fine noise, streaks are horizontal noise."""
        self.table.append((*colour, grain, streaks))
        return len(self.table) - 1

    def _polygons(self, shapes: np.ndarray, paint: int, label: int) -> None:
        scale = np.array([self.width, self.height])
        pixels = list(np.rint(shapes * scale - 0.5).astype(np.int32))
        cv2.fillPoly(self.paints, pixels, paint)
        cv2.fillPoly(self.labels, pixels, label)

    def _polygon(
        self, points: np.ndarray | Sequence[tuple[float, float]], paint: int, label: int
    ) -> None:
        self._polygons(np.asarray(points)[None], paint, label)

    def _box(
        self, corner: tuple[float, float], opposite: tuple[float, float], paint: int, label: int
    ) -> None:
        left, right = (max(0, round(x * self.width)) for x in (corner[0], opposite[0]))
        top, bottom = (max(0, round(y * self.height)) for y in (corner[1], opposite[1]))
        self.paints[top:bottom, left:right] = paint
        self.labels[top:bottom, left:right] = label

    def _wedge(self, left: float, right: float, paint: int, label: int) -> None:
        """Fill the ground between two rays."""
        apex = (self.vanish, self.horizon)
        self._polygon([apex, self._ground(right, 1.5), self._ground(left, 1.5)], paint, label)

    def _ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], paint: int, label: int
    ) -> None:
        at = (round(centre[0] * self.width), round(centre[1] * self.height))
        axes = (max(1, round(radii[0] * self.width)), max(1, round(radii[1] * self.height)))
        cv2.ellipse(self.paints, at, axes, 0, 0, 360, paint, -1)
        cv2.ellipse(self.labels, at, axes, 0, 0, 360, label, -1)

    def _expose(self) -> np.ndarray:
        """Render the paints as an image: texture, light, blur and sensor noise."""
        rng, (height, width) = self.rng, self.paints.shape
        table = np.take(np.asarray(self.table, np.float32), self.paints, axis=0)  # (H, W, 5)
        grain = rng.standard_normal((height, width), np.float32)
        streaks = cv2.resize(
            rng.standard_normal((height, max(2, width // 12)), np.float32), (width, height)
        )
        image = table[..., :3] + (table[..., 3] * grain + table[..., 4] * streaks)[..., None]
        # independent of the sky, otherwise the brightness of the strip would reveal its class
        light = rng.uniform(0.55, 1.25) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
        left, right = rng.uniform(0.8, 1.2, 2)
        slope = np.linspace(left, right, width, dtype=np.float32)[None, :, None]
        image = cv2.GaussianBlur(image * light.astype(np.float32) * slope, (3, 3), 0.6)
        image += rng.standard_normal((height, width, 3), np.float32) * rng.uniform(1, 6)
        return np.clip(image, 0, 255).astype(np.uint8)


def _inside(quad: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Map bilinear coordinates (..., 2) in [0, 1] to points of a quad."""
    u, v = at[..., :1], at[..., 1:]
    top = quad[0] * (1 - u) + quad[1] * u
    bottom = quad[3] * (1 - u) + quad[2] * u
    return top * (1 - v) + bottom * v
