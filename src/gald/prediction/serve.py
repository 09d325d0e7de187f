"""`gald serve RUN`: a local web page that segments uploaded images."""

import os
import socket
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from gald.data.reading.complete import read_head
from gald.data.reading.files import file_size
from gald.data.reading.header import read_size
from gald.data.reading.listing import IMAGE_SUFFIXES, list_files
from gald.data.synthetic import SyntheticDataModule
from gald.errors import to_sentence
from gald.install.extras import require
from gald.prediction import serve_view as view
from gald.prediction.prediction import Prediction
from gald.prediction.predictor import Predictor, load
from gald.prediction.time_limit import TimeLimit
from gald.run.building import build
from gald.run.checkpoint import find_checkpoint
from gald.run.markdown import as_markdown

if TYPE_CHECKING:
    import gradio

WAITING = 32  # pictures that wait for an answer; more are told that the queue is full
MOST_EXAMPLES = 6
_CELL = "padding:2px 8px;border:0"


class Bounds(NamedTuple):
    """What one uploaded picture may cost.

    Attributes:
        megapixels: largest picture.
        megabytes: largest file.
        seconds: longest time from an upload to its answer.
        at_once: number of pictures that are segmented at the same time.
    """

    megapixels: int = 25
    megabytes: int = 50
    seconds: int = 60
    at_once: int = 2


DEFAULTS = Bounds()


def serve(
    source: str,
    port: int = 7860,
    host: str = "127.0.0.1",
    trust: Sequence[str] = (),
    bounds: Bounds = DEFAULTS,
    examples: Path | None = None,
) -> None:
    """Serve a page that segments uploaded images, until interrupted.

    No data leaves the machine: no telemetry, no shared link, no content from other servers.
    Uploads are deleted within the hour and when the server ends.

    Args:
        source: as in `gald.load`.
        port: a free port.
        host: address to listen on.
        trust: as in `gald.load`.
        bounds: what one uploaded picture may cost.
        examples: folder with png and jpg files to offer on the page; None offers drawn streets if
            the network was trained on them.

    Raises:
        FileNotFoundError: there is no such network, or no picture in the folder.
        ValueError: the port is taken or forbidden, a bound is below 1, or gradio is not installed.
    """
    for name, value in bounds._asdict().items():
        if value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    require("gald serve", "serve")
    _check_port_is_free(host, port)
    weights = find_checkpoint(source)
    predictor = load(weights, trust)
    with tempfile.TemporaryDirectory() as folder:
        files = _own_examples(examples) if examples else _drawn_examples(predictor, Path(folder))
        app = page(predictor, Path(source).absolute().name, bounds, weights, files)
        app.queue(api_open=False, max_size=WAITING).launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=f"{bounds.megabytes}mb",
            ssr_mode=False,
            footer_links=[],
            theme=_offline_theme(),
            css=view.style(),
            head=view.script(),
        )
        url_host = f"[{host}]" if ":" in host else host  # IPv6 addresses need brackets
        print(f"open http://{url_host}:{port} (Ctrl+C stops the server)", flush=True)
        app.block_thread()


def segment(predictor: Predictor, path: Path, bounds: Bounds, limit: TimeLimit) -> Prediction:
    """Segment an uploaded picture; an error names the picture, the bound and the remedy.

    Args:
        predictor: the network.
        path: the uploaded file.
        bounds: what it may cost.
        limit: made from the bounds; shared by all uploads.

    Raises:
        ValueError: the picture was not segmented.
    """
    try:
        megabytes = file_size(path) / 1e6
        if megabytes > bounds.megabytes:
            raise ValueError(
                f"{path.name} has {megabytes:.0f} MB, and this page takes {bounds.megabytes}; make "
                "it smaller, or start the server with --megabytes"
            )
        height, width = read_size(read_head(path)) or (0, 0)
        if height * width > bounds.megapixels * 10**6:
            raise ValueError(
                f"{path.name} is {width}x{height}, {height * width} pixels, and this page takes "
                f"{bounds.megapixels} million; make it smaller, or start the server with "
                f"--megapixels {-(-height * width // 10**6)}"
            )
        return limit(lambda: predictor.predict(path))
    except TimeoutError as error:
        raise ValueError(
            f"{path.name} was not segmented within {bounds.seconds} seconds ({error}); try it "
            f"again, make it smaller, or start the server with --seconds {2 * bounds.seconds}"
        ) from None
    except Exception as error:  # nobody who looks at the page sees the server's messages
        # The folder of the uploads is of no use to them.
        raise ValueError(to_sentence(error).replace(f"{path.parent}{os.sep}", "")) from error


def page(
    predictor: Predictor,
    name: str,
    bounds: Bounds = DEFAULTS,
    weights: Path | None = None,
    examples: Sequence[Path] = (),
) -> "gradio.Blocks":
    """Build the page: input image; output overlay, share of each class, LD map and confidence.

    Args:
        predictor: the network.
        name: name of the network on the page.
        bounds: what one uploaded picture may cost.
        weights: file of the network; the page shows the scores of the results beside it.
        examples: pictures to offer.
    """
    gradio = _import_gradio()
    limit: TimeLimit[Prediction] = TimeLimit(bounds.seconds, bounds.at_once)
    colours = view.legend(predictor.class_names, predictor.palette)

    def predict(path: Path | None) -> tuple[Any, str, Any, Any]:
        if path is None:
            return "", colours, gradio.HTML("", visible=False), ""
        try:
            prediction = segment(predictor, path, bounds, limit)
        except ValueError as error:
            title = "This picture was not segmented"
            raise gradio.Error(escape(str(error)), title=title, print_exception=False) from error
        ld_view = "" if prediction.ld_map is None else _ld_view(prediction.ld_map)
        return (
            view.overlay_view(prediction),
            shares_table(prediction),
            gradio.HTML(ld_view, visible=bool(ld_view)),
            "" if prediction.confidence is None else _confidence_view(prediction.confidence),
        )

    delete = (600, 3600)  # seconds: interval, and least age of deleted files
    title = f"gald: {name}"
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=delete) as app:
        gradio.Markdown(f"# gald: {as_markdown(name)}")
        gradio.HTML(view.about(predictor, weights), elem_id="about")
        with gradio.Row():
            with gradio.Column(min_width=300):
                image = gradio.Image(
                    label=f"Image of at most {bounds.megapixels} megapixels, {bounds.megabytes} MB",
                    sources=["upload", "clipboard"],
                    buttons=["fullscreen"],
                    elem_id="image",
                )
                offered = gradio.Dataset(
                    label="Examples",
                    components=[image],
                    samples=[[str(path)] for path in examples],
                    type="index",
                    elem_id="examples",
                    visible=bool(examples),
                )
            with gradio.Column(min_width=300):
                overlay = gradio.HTML(elem_id="overlay")
                shares = gradio.HTML(colours, elem_id="shares")
        with gradio.Row():
            with gradio.Column(min_width=300):
                confidence = gradio.HTML(elem_id="confidence")
            with gradio.Column(min_width=300):
                ld_view = gradio.HTML(elem_id="ld_map")
        # Gradio's own decodes the picture, whatever its size. Its `Examples` would undo this.
        image.preprocess = _uploaded
        outputs = [overlay, shares, ld_view, confidence]
        # As many as wait: each call ends in time by itself.
        image.change(predict, image, outputs, api_visibility="private", concurrency_limit=WAITING)
        offered.click(lambda n: str(examples[n]), offered, image, api_visibility="private")
    return app


def _ld_view(values: np.ndarray) -> str:
    title = "LD map: the weight that local distribution gives to each pixel"
    return view.map_view(values, title, float(values.min()), float(values.max()))


def _confidence_view(values: np.ndarray) -> str:
    return view.map_view(values, "Confidence: probability of the shown class", 0.0, 1.0)


def _own_examples(folder: Path) -> list[Path]:
    """Return the first pictures of the user's folder."""
    files = list_files(folder.expanduser(), IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"--examples {folder} has no picture; name a folder with {', '.join(IMAGE_SUFFIXES)}"
        )
    return files[:MOST_EXAMPLES]


def _drawn_examples(predictor: Predictor, folder: Path) -> list[Path]:
    """Draw streets into a folder for a network that was trained on such; for others, none."""
    config = predictor.config.get("data")
    target = f"{SyntheticDataModule.__module__}.{SyntheticDataModule.__name__}"
    if not isinstance(config, dict) or config.get("_target_") != target:
        return []
    dataset = build("data", config, "the network's config").make_dataset("test")
    files = []
    for index in range(min(MOST_EXAMPLES, len(dataset))):
        files.append(folder / f"{dataset.image_name(index)}.png")
        Image.fromarray(dataset.pixels(index).image).save(files[-1])
    return files


def _uploaded(payload: Any) -> Path | None:
    """Return the path of an uploaded file."""
    return Path(payload.path) if payload and payload.path else None


def shares_table(prediction: Prediction) -> str:
    """Return an HTML table of each class's share of the pixels and colour, largest first."""
    colours = dict(zip(prediction.class_names, prediction.palette, strict=True))
    rows = []
    for name, share in sorted(prediction.shares().items(), key=lambda item: -item[1]):
        if share == 0:
            continue
        colour = "rgb({}, {}, {})".format(*colours[name])
        bar = f"background:{colour};width:{max(share * 100, 0.5):.1f}%;height:1em"
        rows.append(
            f'<tr style="border:0"><td style="{_CELL};white-space:nowrap">{escape(name)}</td>'
            f'<td style="{_CELL};text-align:right">{share:.1%}</td>'
            f'<td style="{_CELL};width:70%"><div style="{bar}"></div></td></tr>'
        )
    absent = [escape(name) for name, share in prediction.shares().items() if share == 0]
    ending = (
        f'<p class="gald-absent">Not in this picture: {", ".join(absent)}</p>' if absent else ""
    )
    return f'<table style="width:100%;border:0">{"".join(rows)}</table>{ending}'


def _check_port_is_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"cannot listen on port {port} of {host} ({reason}); choose another port with "
                "--port"
            ) from error


def _import_gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio

    return gradio


def _offline_theme() -> Any:
    """Return a theme with system fonts; the browser would download gradio's own."""
    fonts = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}
    return _import_gradio().themes.Default(**fonts)
