"""``bloodseg serve``: photos go in, a report comes out, and nothing else does."""

import base64
import io
import re
import shutil
import subprocess
import sys
import threading

import pytest
from PIL import Image
from werkzeug.serving import make_server

from bloodseg import BloodCellSegmenter
from bloodseg.cli import _serve, main
from bloodseg.datasets import make_smears

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
SMEARS = make_smears(3, image_size=96, random_state=0, red_cell_diameter=20)


@pytest.fixture(scope="module")
def app():
    segmenter = BloodCellSegmenter(
        width=4, max_epochs=4, crop_size=64, batch_size=2, random_state=0, learning_rate=1e-2
    )
    return _serve.make_app(segmenter.fit(SMEARS.images, SMEARS.masks), "mine.safetensors")


@pytest.fixture
def client(app):
    return app.test_client()


def png(index=0):
    file = io.BytesIO()
    Image.fromarray(SMEARS.images[index]).save(file, "PNG")
    return file.getvalue()


def post(client, *photos, pixel_size="", **options):
    data = {"photos": [(io.BytesIO(content), name) for name, content in photos]}
    return client.post("/", data=data | {"pixel_size": pixel_size}, **options)


def table(page, name):
    content = re.search(rf'download="{name}" href="data:text/csv;charset=utf-8;base64,(.*?)"', page)
    return base64.b64decode(content[1]).decode().splitlines()


def test_the_form(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert "PNG, JPEG, TIFF, BMP or HEIC, at most 20 photos, 256 MB together" in answer.text
    assert "image/*" not in answer.text
    assert 'accept="image/png,image/jpeg,.tif,.tiff,image/bmp,.heic,.heif"' in answer.text
    assert "http" not in answer.text  # nothing comes from elsewhere


def test_iphones_send_jpeg_where_heic_is_not_read(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    answer = client.get("/")
    assert "PNG, JPEG, TIFF or BMP, at most" in answer.text
    assert "image/*" not in answer.text
    assert ".heic" not in answer.text


def test_photos_become_a_report_with_tables(client):
    answer = post(client, ("a.png", png(0)), ("b.png", png(1)), pixel_size="0,2")
    assert answer.status_code == 200
    assert "2 images" in answer.text
    assert "mine.safetensors" in answer.text
    header, first, second = table(answer.text, "counts.csv")
    assert header.startswith("image,white,red,white_in_frame,red_in_frame,area_mm2")
    assert first.startswith("a.png,")
    assert second.startswith("b.png,")
    assert table(answer.text, "cells.csv")[1].startswith("a.png,")


def test_names_are_only_names(client, tmp_path):
    names = ["../../etc/<b>.png", "photos/=1+1.png", "x.png", "x.png"]
    answer = post(client, *((name, png()) for name in names))
    assert "<b>.png" not in answer.text
    assert "&lt;b&gt;.png" in answer.text
    found = [row.partition(",")[0] for row in table(answer.text, "counts.csv")[1:]]
    assert found == ["<b>.png", "./=1+1.png", "x.png", "x.png (4)"]


def test_what_fails_costs_no_other(client):
    answer = post(client, ("a.png", png()), ("note.png", b"no image at all"))
    assert answer.status_code == 200
    assert "1 image could not be read" in answer.text
    assert re.search(r"<li>note\.png: .*note\.png", answer.text)
    assert "bloodseg-" not in answer.text  # the temporary folder is nobody's business
    alone = post(client, ("note.png", b"no image at all"))
    assert alone.status_code == 400
    assert "note.png" in alone.text


@pytest.mark.parametrize(
    ("photos", "pixel_size", "said"),
    [
        ([], "", "choose 1 to 20 photos at a time; got 0."),
        ([("a.png", b"")] * 21, "", "choose 1 to 20 photos at a time; got 21."),
        ([("a.png", b"x")], "wide", "must be a number of micrometres, or nothing; got &#39;wide"),
        ([("a.png", b"x")], "-1", "must be above 0 micrometres; got &#39;-1&#39;"),
        ([("a.png", b"x")], "inf", "must be above 0 micrometres; got &#39;inf&#39;"),
    ],
)
def test_bad_requests(client, photos, pixel_size, said):
    answer = post(client, *photos, pixel_size=pixel_size)
    assert answer.status_code == 400
    assert said in answer.text


def test_large_requests_are_refused(app, client, monkeypatch):
    monkeypatch.setitem(app.config, "MAX_CONTENT_LENGTH", 1000)
    answer = post(client, ("a.png", bytes(2000)))
    assert answer.status_code == 413
    assert "Photos must be at most 256 MB together." in answer.text


def test_strangers_are_refused(client):
    for host in ("evil.example", "evil.example:8000", "[::2]:8000"):
        answer = client.get("/", headers={"Host": host})
        assert answer.status_code == 403
        assert "for this machine alone" in answer.text
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert client.get("/", headers={"Host": host}).status_code == 200
    answer = post(client, ("a.png", png()), headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "from its own form alone" in answer.text
    typed = {"Sec-Fetch-Site": "none"}  # as browsers say where nobody has led to the page
    assert client.get("/", headers=typed).status_code == 200
    assert client.get("/elsewhere").status_code == 404


def test_the_command(monkeypatch, capsys):
    served = []
    monkeypatch.setattr(
        "werkzeug.serving.ThreadedWSGIServer.serve_forever", lambda server: served.append(server)
    )
    assert main(["serve", "--port", "0"]) == 0
    (server,) = served
    port = server.port
    assert capsys.readouterr().out == (
        f"Open http://127.0.0.1:{port}/ in a browser. Ctrl-C ends it.\n"
    )
    assert main(["serve", "--port", str(port)]) == 2  # taken
    assert (
        f"127.0.0.1 cannot be served at port {port}: another program has the port"
        in capsys.readouterr().err
    )
    server.server_close()
    assert main(["serve", "--port", "99999"]) == 2
    assert "a port is a whole number up to 65535; got '99999'" in capsys.readouterr().err
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"]) == 0
    assert "whoever can reach 0.0.0.0 can use this page" in capsys.readouterr().err
    served[1].server_close()


DROP = """
const bytes = Uint8Array.from(atob("PHOTO"), each => each.charCodeAt(0));
const dropped = new DataTransfer();
dropped.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
drop.dispatchEvent(new DragEvent("drop", {dataTransfer: dropped, cancelable: true}));
const said = document.getElementById("chosen").textContent;
if (said === "dropped.png") document.querySelector("button").click();
"""


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_a_browser_drops_a_photo(app, tmp_path):
    def scripted(environ, start_response):
        if environ["REQUEST_METHOD"] != "GET":
            return app(environ, start_response)
        script = DROP.replace("PHOTO", base64.b64encode(png()).decode())
        page = (
            app.test_client().get("/").text.replace("</body>", f"<script>{script}</script></body>")
        )
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [page.encode()]

    server = make_server("127.0.0.1", 0, scripted, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--timeout=20000"]
        shown = subprocess.run(
            [
                BROWSER,
                *quiet,
                f"--user-data-dir={tmp_path / 'profile'}",
                "--dump-dom",
                f"http://127.0.0.1:{server.port}/",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
    finally:
        server.shutdown()
        thread.join()
    assert "<title>Blood smear report</title>" in shown
    assert "dropped.png" in shown
