"""Painting without a display: label colours, value colours, legends and figures."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Palette = Sequence[tuple[int, int, int]]
_TO_BGR, _SMALL = cv2.COLOR_RGBA2BGR, (cv2.IMWRITE_PNG_COMPRESSION, 6)
_LONGEST = 50  # characters of a name in a figure
VOID_COLOUR = (0, 0, 0)
# Of charts: colour-blind readers tell them apart, in grey one is darker.
BLUE, ORANGE = "#0072b2", "#d55e00"


def colour_table(palette: Palette) -> np.ndarray:
    """Return a colour for each label, (256, 3) uint8: first the palette, then the void colour."""
    table = np.tile(np.array(VOID_COLOUR, np.uint8), (256, 1))
    table[: len(palette)] = palette
    return table


def colourise(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """Paint labels (H, W) uint8 in the palette's colours, void in black: (H, W, 3) uint8."""
    return colour_table(palette)[np.asarray(labels)]


def viridis(values: np.ndarray) -> np.ndarray:
    """Paint values (H, W) from dark (lowest) to bright (highest): RGB (H, W, 3) uint8."""
    low, high = values.min(), values.max()
    grey = ((values - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)[..., ::-1]


def new_figure(width: float, height: float, dpi: int = 110) -> "Figure":
    """Create an empty figure, with sides in inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    class PlainFigure(Figure):
        """Figure that shows names as they are: a dollar sign does not start a formula."""

        def draw(self, renderer: Any) -> None:
            for text in self.findobj(Text):
                text.set_parse_math(False)
                text.set_text(_drawable(text.get_text()))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing from font")
                super().draw(renderer)

    figure = PlainFigure(figsize=(width, height), layout="constrained", dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def short_name(text: str) -> str:
    """Return a name in one line of at most 50 characters; a longer one loses its middle."""
    text = " ".join(_drawable(text).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 3 :]}"


def _drawable(text: str) -> str:
    """Replace what is not Unicode, as in file names of other encodings, by its number."""
    return text.encode("utf-8", "backslashreplace").decode()


def to_png(figure: "Figure") -> bytes:
    """Render a figure to the bytes of a png file."""
    canvas: Any = figure.canvas
    canvas.draw()  # once; savefig would draw it twice
    pixels = cv2.cvtColor(np.asarray(canvas.buffer_rgba()), _TO_BGR)
    done, png = cv2.imencode(".png", pixels, _SMALL)
    assert done, "8-bit colours can be a png"
    return png.tobytes()


def add_legend(
    figure: "Figure", class_names: Sequence[str], palette: Palette, columns: int
) -> None:
    """Add a legend of class colours below a figure, in at most `columns` columns."""
    from matplotlib.patches import Patch

    handles = [
        Patch(color=(red / 255, green / 255, blue / 255), label=short_name(name))
        for name, (red, green, blue) in zip(class_names, palette, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), columns))
