"""`gald serve RUN`: a local web page that segments uploaded images."""

import os
import socket
import sys
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from gald.cli import Arguments
from gald.painting import viridis
from gald.prediction.prediction import Prediction
from gald.prediction.predictor import Predictor, load

if TYPE_CHECKING:
    import gradio

LARGEST_FILE = "50mb"
_CELL = "padding:2px 8px;border:0"


def main() -> None:
    """Serve the network of the command line until interrupted."""
    parser = Arguments("gald serve", description="local web page that segments uploaded images")
    parser.add_argument(
        "source", metavar="RUN", help="run folder, checkpoint, folder of save_pretrained or hub id"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="default: 127.0.0.1, this machine only; 0.0.0.0 serves everyone on the network",
    )
    parser.add_trust()
    flags = parser.parse_args(sys.argv[1:])
    serve(flags.source, flags.port, flags.host, flags.trust)


def serve(
    source: str, port: int = 7860, host: str = "127.0.0.1", trust: Sequence[str] = ()
) -> None:
    """Serve a page that segments uploaded images, until interrupted.

    No data leaves the machine: no telemetry, no shared link, no content from other servers.
    Uploads are deleted within the hour and when the server ends.

    Args:
        source: as in `gald.load`.
        port: a free port.
        host: address to listen on.
        trust: as in `gald.load`.

    Raises:
        FileNotFoundError: there is no such network.
        ValueError: the port is taken or forbidden, or gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise ValueError("gald serve needs gradio; install it with: pip install 'gald[serve]'")
    _check_port_is_free(host, port)
    app = page(load(source, trust), Path(source).name)
    theme = _offline_theme()
    app.queue(api_open=False).launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=LARGEST_FILE,
        ssr_mode=False,
        footer_links=[],
        theme=theme,
    )
    url_host = f"[{host}]" if ":" in host else host  # IPv6 addresses need brackets
    print(f"open http://{url_host}:{port} (Ctrl+C stops the server)", flush=True)
    app.block_thread()


def page(predictor: Predictor, name: str) -> "gradio.Blocks":
    """Build the page: input image; output overlay, share of each class and LD map.

    Args:
        predictor: the network.
        name: name of the network on the page.
    """
    gradio = _import_gradio()

    def predict(image: Image.Image | None) -> tuple[Any, str, Any]:
        if image is None:
            return None, "", gradio.Image(None, visible=True)
        try:
            prediction = predictor.predict(image, confidence=False)
        except ValueError as error:
            raise gradio.Error(str(error)) from error
        ld_view = None if prediction.ld_map is None else Image.fromarray(viridis(prediction.ld_map))
        ld_image = gradio.Image(ld_view, visible=ld_view is not None)
        return prediction.overlay(), shares_table(prediction), ld_image

    buttons = ["fullscreen", "download"]  # gradio's default also shares on the web
    delete = (600, 3600)  # seconds: interval, and least age of deleted files
    with gradio.Blocks(title="gald", analytics_enabled=False, delete_cache=delete) as app:
        gradio.Markdown(f"# gald\n{len(predictor.class_names)} classes, from `{name}`")
        with gradio.Row():
            image = gradio.Image(
                label="Image",
                type="pil",
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
        image.change(predict, image, [overlay, shares, ld_view], api_visibility="private")
    return app


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
