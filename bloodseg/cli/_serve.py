"""``bloodseg serve``: a page in the browser to drop photos on."""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._extras import import_extra
from ..datasets import formats_read_here
from ..estimators import BloodCellSegmenter
from ..prediction import Segmented
from ..reporting import ImageResult
from ._batch import explain, segment_one
from ._model import load_segmenter
from ._output import CommandError, complain, first_line, open_in_browser, say
from ._report import render_page
from ._tables import to_csv

MAX_IMAGES = 20
MAX_BYTES = 2**28  # of one request
_MAX_PIXELS = 2**22  # of a picture in the page: what is sent to a browser is not kept there
# What a browser offers to choose. Types, where phones and browsers know them; not "image/*", for
# which an iPhone sends HEIC, while it sends JPEG where HEIC is not asked for.
_ACCEPTED = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "TIFF": ".tif,.tiff",
    "BMP": "image/bmp",
    "HEIC": ".heic,.heif",
}
_LOCAL = ("127.0.0.1", "localhost", "::1")


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    try:
        need = "`bloodseg serve` needs the package flask"
        serving = import_extra("werkzeug.serving", extra="serve", need=need)
    except ImportError as error:
        raise CommandError(str(error)) from error
    segmenter = load_segmenter(arguments)
    host, port = arguments.host, arguments.port
    app = make_app(segmenter, arguments.model, only_local=host in _LOCAL)
    try:
        server = serving.make_server(host, port, app, threaded=True)
    except (OSError, SystemExit) as error:  # werkzeug ends the process where a port is taken
        raise CommandError(
            f"{host} cannot be served at port {port}: another program has the port, or this "
            "machine has no such address. Choose others with --port and --host."
        ) from error
    address = f"http://{f'[{host}]' if ':' in host else host}:{server.port}/"
    if host not in _LOCAL:
        complain(f"whoever can reach {host} can use this page; nothing asks for a password.")
    say(f"Open {address} in a browser. Ctrl-C ends it.")
    if arguments.open:
        open_in_browser(address, address)
    server.serve_forever()
    return 0


def make_app(segmenter: BloodCellSegmenter, model: str, *, only_local: bool = True) -> Any:
    """Return the application: a form for photos, and the report of those that are sent.

    Photos lie in a temporary folder until they are read; nothing of them is kept. One request is
    worked on at a time, and holds at most `MAX_IMAGES` photos and `MAX_BYTES` bytes.

    Parameters
    ----------
    segmenter : BloodCellSegmenter
        Finds the cells; not changed.
    model : str
        What the report calls it.
    only_local : bool
        Whether requests that name another host than this machine are refused, as those of a strange
        page that has its own name point here.

    Returns
    -------
    flask.Flask
    """
    from flask import Flask, Response, abort, request
    from jinja2 import Environment, PackageLoader
    from werkzeug.exceptions import HTTPException

    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    environment = Environment(loader=PackageLoader("bloodseg.cli", "."), autoescape=True)
    one_at_a_time = threading.Lock()

    def form(message: str = "", status: int = 200) -> Response:
        formats = formats_read_here()
        page = environment.get_template("serve.html.jinja").render(
            message=message,
            max_images=MAX_IMAGES,
            max_megabytes=MAX_BYTES // 2**20,
            formats=formats,
            accepted=",".join(_ACCEPTED[name] for name in formats),
        )
        return Response(page, status, mimetype="text/html")

    @app.before_request
    def refuse_strangers() -> None:
        if only_local and _host_of(request.host) not in _LOCAL:
            abort(403, f"this page is for this machine alone, not for {request.host}.")
        # A form of another page may send photos here, in the name of who looks at it.
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            abort(403, "this page takes photos from its own form alone.")

    @app.errorhandler(HTTPException)
    def explain_refusal(error: HTTPException) -> Response:
        if error.code == 413:
            return form(f"Photos must be at most {MAX_BYTES // 2**20} MB together.", 413)
        return form(error.description or error.name, error.code or 500)

    @app.get("/")
    def ask() -> Response:
        return form()

    @app.post("/")
    def answer() -> Response:
        try:
            chosen = _with_pixel_size(segmenter, request.form.get("pixel_size", ""))
            with (
                tempfile.TemporaryDirectory(prefix="bloodseg-") as folder,
                one_at_a_time,
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore", UserWarning)  # doubts: they stand on the page
                photos = _save(request.files.getlist("photos"), Path(folder))
                page = _read(chosen, photos, model)
        except ValueError as error:
            return form(first_line(error), 400)
        return Response(page, mimetype="text/html")

    return app


def _save(uploads: Iterable[Any], folder: Path) -> dict[str, Path]:
    """Save the photos of a request, werkzeug's FileStorage, and return their files by name."""
    photos = [photo for photo in uploads if photo.filename]
    if not 0 < len(photos) <= MAX_IMAGES:
        raise ValueError(f"choose 1 to {MAX_IMAGES} photos at a time; got {len(photos)}.")
    files = {}
    for number, photo in enumerate(photos, start=1):
        # What it is called tells nothing of what it is, and is no name for a file here.
        name = Path(photo.filename.replace("\\", "/")).name or f"photo {number}"
        file = folder / f"{number}.image"
        photo.save(file)
        files[name if name not in files else f"{name} ({number})"] = file
    return files


def _host_of(host: str) -> str:
    """Return a host without its port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _with_pixel_size(segmenter: BloodCellSegmenter, text: str) -> BloodCellSegmenter:
    """Return a segmenter for images of a pixel size, as it was typed; "" for what files say."""
    if not text.strip():
        return segmenter
    try:
        size = float(text.replace(",", "."))
    except ValueError:
        raise ValueError(
            f"the width of a pixel must be a number of micrometres, or nothing; got {text!r}."
        ) from None
    if not 0 < size < math.inf:
        raise ValueError(f"the width of a pixel must be above 0 micrometres; got {text!r}.")
    return copy.copy(segmenter).set_params(pixel_size=size)


def _read(segmenter: BloodCellSegmenter, files: dict[str, Path], model: str) -> str:
    """Return the report of photos, with its tables; what fails is named in it."""
    results: list[ImageResult] = []
    counts: list[Any] = []
    cells: list[Any] = []
    failed = {}
    for name, file in files.items():
        started = time.perf_counter()
        try:
            found: Segmented = segment_one(segmenter, file)
            seconds = time.perf_counter() - started
            result = ImageResult.of(found, name, seconds, max_pixels=_MAX_PIXELS)
            results.append(result)
            counts.append(found.count() | {"image": name})
            cells += result.cells.assign(image=name).to_dict("records")
        except Exception as error:  # whatever it is, it costs no other photo
            failed[name] = explain(error).replace(str(file), name)
    if not results:
        raise ValueError("; ".join(f"{name}: {why}" for name, why in failed.items()))
    return render_page(
        results,
        segmenter,
        model,
        failed=failed,
        files={"counts.csv": to_csv(counts), "cells.csv": to_csv(cells)},
    )
