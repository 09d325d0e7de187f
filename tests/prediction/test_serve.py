"""The web page of `gald serve` in a browser."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import fake
import numpy as np
import pytest
from networks import CLASSES, make
from PIL import Image

from gald import cli
from gald.prediction import serve
from gald.prediction.prediction import Prediction

# Chromium contacts Google's hosts by itself; with these flags only the page makes requests.
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    for flag in [*FLAGS, "--window-size=1280,1000", f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(flag)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


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
    command += ["--megabytes", "1"]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.communicate()


def test_page_shows_overlay_shares_and_ld_map_of_an_image(server, port, browser, tmp_path):
    assert server == f"open http://127.0.0.1:{port} (Ctrl+C stops the server)"
    image = tmp_path / "street.png"
    Image.effect_noise((120, 80), 90).convert("RGB").save(image)
    browser.get("about:blank")
    browser.get_log("performance")  # discard Chromium's requests at its start
    browser.get(f"http://127.0.0.1:{port}")
    wait_for(browser, "#image input[type=file]")[0].send_keys(str(image))
    for name in ("overlay", "ld_map"):
        (element,) = wait_for(browser, f"#{name} img")
        assert size_of(browser, element) == [120, 80]
    rows = [row.text for row in wait_for(browser, "#shares tr")]
    shares = [float(re.fullmatch(r"(\w+) ([\d.]+)%", row)[2]) for row in rows]
    assert {row.split()[0] for row in rows} <= set(CLASSES)
    assert sum(shares) == pytest.approx(100, abs=0.2)
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
