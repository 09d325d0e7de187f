"""The web page of `gald serve` in a browser."""

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import time

import cv2
import fake
import numpy as np
import pytest
from networks import CLASSES, make
from PIL import Image

from gald import cli
from gald.prediction import serve, serve_view
from gald.prediction.prediction import Prediction
from gald.prediction.predictor import load
from gald.run.provenance import sha256


@pytest.fixture(scope="module")
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory, port):
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("serve")
    network = make(folder / "a [b] <i> `c` $x$", "model/ga=gap", "model/ld=mask")
    code = "from gald.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(network), "--port", str(port)]
    (folder / "examples").mkdir()
    Image.effect_noise((60, 40), 90).convert("RGB").save(folder / "examples" / "one.png")
    command += ["--megabytes", "1", "--examples", str(folder / "examples")]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.communicate()


@pytest.mark.slow
def test_page_shows_overlay_shares_and_ld_map_of_an_image(server, port, browser, tmp_path):
    assert server == f"open http://127.0.0.1:{port} (Ctrl+C stops the server)"
    image = tmp_path / "street.png"
    Image.effect_noise((120, 80), 90).convert("RGB").save(image)
    browser.get("about:blank")
    browser.get_log("performance")  # discard Chromium's requests at its start
    browser.get(f"http://127.0.0.1:{port}")
    wait_for(browser, "#image input[type=file]")[0].send_keys(str(image))
    for name in ("overlay", "ld_map", "confidence"):
        (element,) = wait_for(browser, f"#{name} img")
        assert size_of(browser, element) == [120, 80]
    rows = [row.text for row in wait_for(browser, "#shares tr")]
    shares = [float(re.fullmatch(r"(\w+) ([\d.]+)%", row)[2]) for row in rows]
    assert {row.split()[0] for row in rows} <= set(CLASSES)
    assert sum(shares) == pytest.approx(100, abs=0.2)
    check_controls(browser)
    hosts = set(re.findall(r'"url":"https?://([^/"]+)', str(browser.get_log("performance"))))
    assert hosts == {f"127.0.0.1:{port}"}
    assert not browser.find_elements("css selector", "[aria-label*=Share]")

    tiny = tmp_path / "tiny.png"
    Image.new("RGB", (4, 5)).save(tiny)
    browser.refresh()
    wait_for(browser, "#image input[type=file]")[0].send_keys(str(tiny))
    (element,) = wait_for(browser, "#overlay img")
    assert size_of(browser, element) == [4, 5]

    text = tmp_path / "text.png"
    text.write_text("no picture")
    browser.refresh()
    wait_for(browser, "#image input[type=file]")[0].send_keys(str(text))
    (toast,) = wait_for(browser, "[data-testid=toast-body]")
    words = toast.get_attribute("textContent")
    assert "image text.png cannot be decoded; replace it by a valid png or jpg" in words


def check_controls(browser):
    """Point at pixels, move the slider, and look for names of pictures and buttons."""
    from selenium.webdriver.common.action_chains import ActionChains

    wait_for(browser, "#overlay figure[data-ready=yes]")
    wait_for(browser, "#confidence figure[data-ready=yes]")
    (canvas,) = browser.find_elements("css selector", "#overlay canvas")
    ActionChains(browser).move_to_element(canvas).perform()
    (tip,) = browser.find_elements("css selector", "#overlay .gald-tip")
    assert re.fullmatch(rf"({'|'.join(CLASSES)}), \d+% sure", tip.text)
    (scale,) = browser.find_elements("css selector", "#confidence .gald-scale")
    assert scale.text.split() == ["0.00", "1.00"]
    (slider,) = browser.find_elements("css selector", "#overlay input[type=range]")
    move = (
        "arguments[0].value = 25; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
    )
    browser.execute_script(move, slider)
    assert canvas.value_of_css_property("opacity") == "0.25"
    names = """return [...document.querySelectorAll('button, a, input, img, canvas')].filter(
        e => e.type === 'file' || e.offsetParent !== null).filter(
        e => !(e.ariaLabel || e.alt || e.title || e.innerText || e.labels?.[0]?.innerText)).map(
        e => e.outerHTML.slice(0, 200))"""
    assert browser.execute_script(names) == []


@pytest.mark.slow
def test_page_fits_a_phone_and_an_example_is_segmented(server, port, browser):
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(f"http://127.0.0.1:{port}")
    (facts,) = wait_for(browser, "#about dl")
    assert {"3 classes", "not evaluated", "GAP", "Mask"} <= set(facts.text.splitlines())
    colours = [item.text for item in wait_for(browser, "#shares li")]
    assert colours == list(CLASSES)
    wait_for(browser, "#examples button")[0].click()
    wait_for(browser, "#overlay figure[data-ready=yes]")
    (element,) = wait_for(browser, "#overlay img")
    assert size_of(browser, element) == [60, 40]
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390


@pytest.mark.slow
def test_an_upload_is_answered_with_its_shares_or_with_the_reason(server, port):
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        config = client.get("config").json()
        function = config["dependencies"][0]["id"]

        def ask(name, data):
            sent = client.post("gradio_api/upload", files={"files": (name, data)})
            if sent.status_code != 200:
                return sent.text
            picture = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
            session = re.sub(r"\W", "", name)
            asked = {"data": [picture], "fn_index": function, "session_hash": session}
            client.post("gradio_api/queue/join", json=asked).raise_for_status()
            with client.stream("GET", f"gradio_api/queue/data?session_hash={session}") as lines:
                line = next(line for line in lines.iter_lines() if "process_completed" in line)
            return json.loads(line.partition(":")[2])["output"]

        answer = ask("bomb<b>.png", fake.png(30000, 30000))
        assert "30000x30000, 900000000 pixels, and this page takes 25 million" in answer["error"]
        assert answer["title"] == "This picture was not segmented" and "<" not in answer["error"]
        assert "cannot be decoded" in ask("text.png", b"text")["error"]
        assert "maximum allowed size of 1048576 bytes" in ask("large.png", bytes(2 * 10**6))
        good = io.BytesIO()
        Image.new("RGB", (40, 30)).save(good, "png")
        assert "<table" in ask("good.png", good.getvalue())["data"][1]
    texts = [c["props"]["value"] for c in config["components"] if c["type"] == "markdown"]
    assert texts[0].endswith("a &#91;b&#93; &#60;i&#62; &#96;c&#96; &#36;x&#36;")


def wait_for(browser, selector):
    for _ in range(300):
        if found := browser.find_elements("css selector", selector):
            return found
        time.sleep(0.1)
    raise AssertionError(f"no {selector} on the page: {browser.page_source[:2000]}")


def size_of(browser, image):
    script = (
        "return arguments[0].complete && [arguments[0].naturalWidth, arguments[0].naturalHeight]"
    )
    for _ in range(100):
        if size := browser.execute_script(script, image):
            return size
        time.sleep(0.1)
    raise AssertionError("the image never loads")


@pytest.mark.integration
def test_a_port_in_use_is_refused_before_the_network_is_loaded(monkeypatch, capsys):
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["gald", "serve", "nowhere", "--port", str(number)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert stop.value.code == 1
    first = capsys.readouterr().err.splitlines()[0]
    assert re.search(rf"^gald: cannot listen on port {number} of 127.0.0.1 \(.*\); choose", first)


def test_table_of_shares_is_sorted_and_escaped():
    labels = np.array([[0, 1, 1], [1, 1, 1]], np.uint8)
    palette = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    prediction = Prediction(
        np.zeros((2, 3, 3), np.uint8), labels, None, None, ("<b>", "sky", "no"), palette
    )
    table = serve.shares_table(prediction)
    assert re.findall(r">([^<>]+)</td>", table) == ["sky", "83.3%", "&lt;b&gt;", "16.7%"]
    assert "rgb(4, 5, 6)" in table


def test_a_large_picture_is_shown_smaller_and_saved_whole():
    labels = np.zeros((10, 4000), np.uint8)
    labels[:, 2000:] = 1
    palette = ((1, 2, 3), (4, 5, 6))
    picture = np.zeros((10, 4000, 3), np.uint8)
    prediction = Prediction(picture, labels, None, None, ("<b>", "sky"), palette)
    html = serve_view.overlay_view(prediction)
    assert "4000x10 pixels, shown at 1600x4. " in html and "<b>" not in html
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(content))).size
        for content in re.findall(r"data:image/\w+;base64,([^\"]+)", html)
    ]
    assert sizes == [(1600, 4), (1600, 4), (4000, 10)]


def test_a_map_has_a_scale_also_where_it_is_flat():
    low, high = re.findall(r"<b>([\d.]+)</b>", serve_view.map_view(np.eye(3), "x", 0.0, 1.0))
    assert (low, high) == ("0.00", "1.00")
    flat = np.full((2, 2), 0.5012)
    ends = re.findall(r"<b>([\d.]+)</b>", serve_view.map_view(flat, "x", 0.5012, 0.5012))
    assert ends == ["0.501", "0.501"]


def test_the_scores_of_other_weights_are_not_shown(tmp_path):
    folder = make(tmp_path / "network")
    weights = folder / "model.safetensors"
    network = load(weights)
    for digest, words in ((sha256(weights), "61.2% on val"), ("0" * 64, "not evaluated")):
        receipt = {"checkpoint_sha256": digest}
        results = {"val/miou": 0.612, "val/receipt": receipt}
        (folder / "results.json").write_text(json.dumps(results))
        assert words in serve_view.about(network, weights)


def test_examples_are_drawn_streets_or_those_of_a_folder(trained, tmp_path):
    files = serve._drawn_examples(load(trained("data.test_count=2")), tmp_path)
    assert [cv2.imread(str(file)).shape for file in files] == [(96, 128, 3), (96, 128, 3)]
    assert serve._drawn_examples(load(make(tmp_path / "network")), tmp_path) == []
    with pytest.raises(FileNotFoundError, match=r"--examples .*empty has no picture; name"):
        serve._own_examples(tmp_path / "empty")
