"""`gald serve RUN`: a web page on this machine to drop images on."""

import os
import socket
import sys
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
    """Serve the network that the command line names until it is interrupted."""
    parser = Arguments("gald serve", description="a web page to drop images on")
    parser.add_argument(
        "source", metavar="RUN", help="run folder, checkpoint, folder of save_pretrained or hub id"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="default: 127.0.0.1, this machine alone; 0.0.0.0 lets everyone in who can reach it",
    )
    flags = parser.parse_args(sys.argv[1:])
    serve(flags.source, flags.port, flags.host)


def serve(source: str, port: int = 7860, host: str = "127.0.0.1") -> None:
    """Serve a page that parses the images dropped on it, until interrupted.

    Nothing leaves the machine: no telemetry, no shared link, nothing loaded from elsewhere. What
    is dropped is deleted within the hour and when the server ends.

    Args:
        source: as in `gald.load`.
        port: must be free.
        host: address to listen on.

    Raises:
        FileNotFoundError: there is no such network.
        ValueError: the port is taken or may not be used, or gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise ValueError("serve needs one more package; install it with: pip install 'gald[serve]'")
    _check_free(host, port)
    app = page(load(source), Path(source).name)
    look = _look()
    app.queue(api_open=False).launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=LARGEST_FILE,
        ssr_mode=False,
        footer_links=[],
        **look,
    )
    shown = f"[{host}]" if ":" in host else host
    print(f"open http://{shown}:{port} (Ctrl+C ends it)", flush=True)
    app.block_thread()


def page(predictor: Predictor, name: str) -> "gradio.Blocks":
    """The page: image in; overlay, share of every class and LD map out.

    Args:
        predictor: what parses.
        name: what the page says it is.
    """
    gradio = _gradio()

    def parse(image: Image.Image | None) -> tuple[Any, str, Any]:
        if image is None:
            return None, "", gradio.Image(None, visible=True)
        try:
            prediction = predictor.predict(image, confidence=False)
        except ValueError as error:
            raise gradio.Error(str(error)) from error
        ld_view = None if prediction.ld_map is None else Image.fromarray(viridis(prediction.ld_map))
        shown = gradio.Image(ld_view, visible=ld_view is not None)
        return prediction.overlay(), shares_table(prediction), shown

    buttons = ["fullscreen", "download"]  # without sharing on the web
    delete = (600, 3600)  # seconds: how often, and what is older
    with gradio.Blocks(title="gald", analytics_enabled=False, delete_cache=delete) as app:
        gradio.Markdown(f"# gald\n{len(predictor.class_names)} classes, from `{name}`")
        with gradio.Row():
            dropped = gradio.Image(
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
        dropped.change(parse, dropped, [overlay, shares, ld_view], api_visibility="private")
    return app


def shares_table(prediction: Prediction) -> str:
    """What share of the picture each class has, largest first, as HTML with its colours."""
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


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"cannot listen on port {port} of {host} ({reason}); choose another with --port"
            ) from error


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio

    return gradio


def _look() -> dict[str, Any]:
    """Fonts of the machine that looks at it; gradio's own would come from elsewhere."""
    themes = _gradio().themes
    fonts = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}
    return {"theme": themes.Default(**fonts)}
