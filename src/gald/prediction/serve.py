"""`gald serve RUN`: a local web page that segments uploaded images."""

import os
import socket
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from gald.data.reading.files import file_size, read_head
from gald.data.reading.header import read_size
from gald.errors import to_sentence
from gald.install.extras import require
from gald.painting import viridis
from gald.prediction.prediction import Prediction
from gald.prediction.predictor import Predictor, load
from gald.prediction.time_limit import TimeLimit
from gald.run.markdown import as_markdown

if TYPE_CHECKING:
    import gradio

WAITING = 32  # pictures that wait for an answer; more are told that the queue is full
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

    Raises:
        FileNotFoundError: there is no such network.
        ValueError: the port is taken or forbidden, a bound is below 1, or gradio is not installed.
    """
    for name, value in bounds._asdict().items():
        if value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    require("gald serve", "serve")
    _check_port_is_free(host, port)
    app = page(load(source, trust), Path(source).name, bounds)
    theme = _offline_theme()
    app.queue(api_open=False, max_size=WAITING).launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=f"{bounds.megabytes}mb",
        ssr_mode=False,
        footer_links=[],
        theme=theme,
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
        return limit(lambda: predictor.predict(path, confidence=False))
    except TimeoutError as error:
        raise ValueError(
            f"{path.name} was not segmented within {bounds.seconds} seconds ({error}); try it "
            f"again, make it smaller, or start the server with --seconds {2 * bounds.seconds}"
        ) from None
    except Exception as error:  # nobody who looks at the page sees the server's messages
        # The folder of the uploads is of no use to them.
        raise ValueError(to_sentence(error).replace(f"{path.parent}{os.sep}", "")) from error


def page(predictor: Predictor, name: str, bounds: Bounds = DEFAULTS) -> "gradio.Blocks":
    """Build the page: input image; output overlay, share of each class and LD map.

    Args:
        predictor: the network.
        name: name of the network on the page.
        bounds: what one uploaded picture may cost.
    """
    gradio = _import_gradio()
    limit: TimeLimit[Prediction] = TimeLimit(bounds.seconds, bounds.at_once)

    def predict(path: Path | None) -> tuple[Any, str, Any]:
        if path is None:
            return None, "", gradio.Image(None, visible=True)
        try:
            prediction = segment(predictor, path, bounds, limit)
        except ValueError as error:
            title = "This picture was not segmented"
            raise gradio.Error(escape(str(error)), title=title, print_exception=False) from error
        ld_view = None if prediction.ld_map is None else Image.fromarray(viridis(prediction.ld_map))
        ld_image = gradio.Image(ld_view, visible=ld_view is not None)
        return prediction.overlay(), shares_table(prediction), ld_image

    buttons = ["fullscreen", "download"]  # gradio's default also shares on the web
    delete = (600, 3600)  # seconds: interval, and least age of deleted files
    with gradio.Blocks(title="gald", analytics_enabled=False, delete_cache=delete) as app:
        text = f"{len(predictor.class_names)} classes, from {as_markdown(name)}"
        gradio.Markdown(f"# gald\n{text}")
        with gradio.Row():
            image = gradio.Image(
                label=f"Image of at most {bounds.megapixels} megapixels, {bounds.megabytes} MB",
                sources=["upload", "clipboard"],
                buttons=["fullscreen"],
                elem_id="image",
            )
            overlay = gradio.Image(
                label="Overlay", format="png", buttons=buttons, elem_id="overlay"
            )
        with gradio.Row():
            shares = gradio.HTML(label="Share of each class", elem_id="shares")
            ld_view = gradio.Image(
                label="LD map: low is dark, high is bright",
                format="png",
                buttons=buttons,
                elem_id="ld_map",
            )
        image.preprocess = _uploaded  # gradio's own decodes the picture, whatever its size
        outputs = [overlay, shares, ld_view]
        # As many as wait: each call ends in time by itself.
        image.change(predict, image, outputs, api_visibility="private", concurrency_limit=WAITING)
    return app


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
    return f'<table style="width:100%;border:0">{"".join(rows)}</table>'


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
