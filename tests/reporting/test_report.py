"""The report: what it says, that it loads nothing, and what a browser makes of it."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from messages import raises
from PIL import Image, ImageOps
from skimage.draw import polygon2mask

from bloodseg.datasets import make_smears
from bloodseg.prediction import Segmented
from bloodseg.prediction._sources import check_sources
from bloodseg.reporting import ImageResult, render_report
from bloodseg.reporting._histogram import _round_numbers

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
DASH, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"


def table(*cells, unit="px"):
    columns = ["class", "diameter", "confidence", "touches_border"]
    cells = pd.DataFrame(cells, columns=columns).astype({"touches_border": bool})
    return cells.assign(unit=unit)


CELLS = ("red", 40.0, 0.9, False), ("red", 44.0, 0.8, False), ("white", 70.0, 1.0, True)


def result(name="field.png", cells=None, **more):
    drawn = make_smears(1, image_size=64, random_state=0)
    cells = table(*CELLS) if cells is None else cells
    return ImageResult(name, drawn.images[0], drawn.masks[0], None, cells, (64, 64), 0.25, **more)


class Page(HTMLParser):
    """The texts of a page's tables and captions, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.addresses, self._cell = {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[key] for key in ("src", "href") if key in attributes]
        if tag == "table":
            self._table = self.tables.setdefault(attributes["id"], [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._table[-1].append(self._cell)
            self._cell = None


def views_of(page):
    """Return what the viewer of a page knows of each image."""
    found = re.findall(r'<script type="application/json" id="view-\d+">(.*?)</script>', page)
    return list(map(json.loads, found))


def test_a_row_an_image_and_the_totals():
    other = result("other.png", table(("red", 50.0, 0.7, True)))
    text = render_report([result(), other], run={"model": "m.safetensors", "tolerance": 1e-3})
    rows = Page(text).tables
    assert rows["images"] == [
        [
            *("image", "pixels", "red", "white"),
            *("red, median px", "white, median px", "confidence", "seconds"),
        ],
        ["field.png", f"64 {TIMES} 64", "2", "1", "42.0", DASH, "90%", "0.25"],
        ["other.png", f"64 {TIMES} 64", "1", "0", DASH, DASH, "70%", "0.25"],
    ]
    assert rows["run"] == [["model", "m.safetensors"], ["tolerance", "0.001"]]
    plain = html.unescape(re.sub(r"<[^>]+>|\s+", " ", text))
    assert "2 images" in plain
    assert re.search(r" 3 +red cells", plain)
    assert re.search(r"\b1 +white cell ", plain)
    assert "2 red cells, 1 white cell" in plain
    assert "1 red cell, 0 white cells" in plain
    assert re.search(r"2 +cells cut by a border", plain)


def test_with_a_pixel_size_it_counts_per_square_millimetre():
    text = render_report([result(cells=table(*CELLS, unit="um"), pixel_size=0.5)], run={})
    header, row = Page(text).tables["images"]
    assert header[4:6] == ["red per mm²", "white per mm²"]
    area = (64 * 0.5 / 1000) ** 2
    assert row[4:6] == [f"{2 / area:.0f}", f"{1 / area:.0f}"]
    assert "median µm" in header[6]


def test_the_totals_are_a_summary_with_and_without_images_in_doubt():
    counts = {"white": 1, "red": 2, "white_in_frame": 1, "red_in_frame": 2}
    counts |= {"area_mm2": 0.002, "frame_mm2": 0.001, "white_per_mm2": 1e3, "red_per_mm2": 2e3}
    good = result("a.png", table(*CELLS, unit="um"), pixel_size=0.5, counts=counts)
    more = {"red": 4, "red_in_frame": 4, "red_per_mm2": 4e3}
    bad = replace(good, name="b.png", doubts=["it is grey"], counts={**counts, **more})
    page = Page(render_report([good, bad], run={}))
    assert page.tables["totals"] == [
        ["", "all images", "without those in doubt"],
        ["images", "2", "1"],
        ["images in doubt", "1", "0"],
        ["white cells", "2", "1"],
        ["red cells", "6", "2"],
        ["white cells in the counting frames", "2", "1"],
        ["red cells in the counting frames", "6", "2"],
        ["area of the counting frames, mm²", "0.002", "0.001"],
        ["white cells per mm²", "1,000", "1,000"],
        ["red cells per mm²", "3,000", "2,000"],
        ["white cells per red cell", "0.333", "0.5"],
        ["white cells per 1,000 red cells", "333", "500"],
        ["median diameter of red cells, µm", "42", "42"],
        ["coefficient of variation of these diameters, %", "5.5", "6.73"],
        ["cells that touch a border, %", "33.3", "33.3"],
    ]
    assert [row[4] for row in page.tables["images"][1:]] == ["4000", "2000"]
    alone = Page(render_report([good], run={})).tables["totals"]
    assert alone[0] == ["", "all images"]
    assert ["red cells per mm²", "2,000"] in alone
    in_pixels = Page(render_report([good.in_pixels()], run={})).tables["totals"]
    assert ["median diameter of red cells, px", "84"] in in_pixels
    assert not [row for row in in_pixels if "mm²" in row[0]]


def test_a_page_without_densities_says_what_is_missing():
    why = "There are no cells per mm², nor sizes in micrometres"
    assert why in render_report([result()], run={})
    in_units = result(cells=table(*CELLS, unit="um"), pixel_size=0.5)
    assert why not in render_report([in_units], run={})


def test_in_pixels_it_stands_beside_images_of_unknown_size():
    known = result("known.png", table(*CELLS, unit="um").assign(area=1.0), pixel_size=0.5)
    text = render_report([known.in_pixels(), result().in_pixels()], run={})
    header, *rows = Page(text).tables["images"]
    assert header[4] == "red, median px"
    assert [row[4] for row in rows] == ["84.0", "42.0"]
    assert "area" not in known.in_pixels().cells


def test_no_cells_are_dashes():
    row = Page(render_report([result(cells=table())], run={})).tables["images"][1]
    assert row[2:7] == ["0", "0", DASH, DASH, DASH]


def test_doubts_are_marked_and_at_the_top():
    page = render_report([result("good.png"), result("bad.png", doubts=["it is <grey>"])], run={})
    (box,) = re.findall(r'<div class="doubts" id="doubts">.*?</div>', page, re.DOTALL)
    assert page.index(box) < page.index('id="summary"')
    assert "1 of 2 images in doubt" in box
    assert "Look at its outlines" in box
    assert "bad.png: it is &lt;grey&gt;." in box
    assert "good.png" not in box
    names = [row[0] for row in Page(page).tables["images"][1:]]
    assert names == ["\N{WARNING SIGN} in doubt bad.png", "good.png"]
    captions = re.findall(r"<figcaption><b>(.+?)</b>", page)
    assert captions == ["bad.png", "good.png"]
    assert [view["name"] for view in views_of(page)] == ["bad.png", "good.png"]
    assert 'id="doubts"' not in render_report([result()], run={})


def test_the_histogram_has_a_panel_for_each_class_that_has_whole_cells():
    text = render_report([result()], run={})
    panels = re.findall(r'<svg viewBox="0 0 720 130".*?</svg>', text, re.DOTALL)
    whole = [diameter for name, diameter, _, cut in CELLS if name == "red" and not cut]
    described = f"red cells: {len(whole)}, diameters in px, median {np.median(whole):.3g}"
    assert f'aria-label="{described}"' in panels[0]
    for panel in panels:
        n_cells = int(re.search(r'aria-label="[^:]+: (\d+),', panel)[1])
        bars = re.findall(r"<title>([\d.e+]+) to ([\d.e+]+) px: (\d+)</title>", panel)
        assert sum(int(count) for *_, count in bars) == n_cells
    cut = table(("red", 40.0, 0.9, True))
    assert "No whole cell was found, so that there are no sizes." in render_report(
        [result(cells=cut)], run={}
    )


@pytest.mark.parametrize(
    ("low", "high"), [(7.0, 7.0), (3.1, 9.6), (42.0, 43.0), (6.0, 999.0), (1e-3, 2e-3)]
)
def test_the_axis_of_the_histogram_ends_at_round_numbers(low, high):
    ticks = _round_numbers(low, high)
    assert 2 <= len(ticks) <= 12
    assert ticks[0] <= low <= high <= ticks[-1]
    assert ticks[0] < ticks[-1]
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_it_needs_nothing_from_elsewhere():
    page = render_report([result()], run={})
    addresses = Page(page).addresses
    assert len([each for each in addresses if each.startswith("data:image/jpeg;base64,")]) == 1
    assert all(each.startswith(("data:", "#")) for each in addresses)
    assert not re.search(r"<script[^>]* src|@import|url\((?!#)|fetch\(|XMLHttp|import\(", page)
    links = re.findall(r"https?://[^\"']+", page)
    assert set(links) == {"http://www.w3.org/2000/svg"}  # a name, which nothing loads


def test_names_are_shown_and_not_run():
    name = "<script>alert(1)</script>.png"
    page = render_report([result(name)], run={"model": "<b>m</b>"})
    assert "alert(1)" in page
    assert "<script>alert" not in page
    (view,) = views_of(page)
    assert view["name"] == name
    assert Page(page).tables["images"][1][0] == name
    assert Page(page).tables["run"] == [["model", "<b>m</b>"]]


def test_large_pictures_are_shrunk():
    large = make_smears(1, image_size=(64, 2100), random_state=0)
    shown = ImageResult("a", large.images[0], large.masks[0], None, table(), (64, 2100), 0.1)
    assert len(render_report([shown], run={})) < 200_000


@pytest.mark.parametrize("limit", [2**22, 100])
def test_of_an_image_only_its_pictures_are_kept(fitted, smears, monkeypatch, limit):
    monkeypatch.setattr("bloodseg.reporting._result._OUTLINED_PIXELS", limit)
    monkeypatch.setattr("bloodseg.reporting._result._MAX_SIDE", 10)
    (segmented,) = fitted.segment(smears.images[:1])
    found = ImageResult.of(segmented, "a", 0.5)
    step = 1 if limit > 100 else 4  # 32 pixels to at most 10
    drawn = ImageResult(
        "a",
        smears.images[0, ::step, ::step],
        fitted.predict(smears.images[:1])[0, ::step, ::step],
        segmented.cells().labels if step == 1 else None,
        segmented.measure(),
        (32, 32),
        0.5,
    ).draw()
    assert found.picture == drawn.picture
    assert Image.open(io.BytesIO(found.picture)).size == (8, 8)
    assert found.image is found.class_map is None
    assert found.labels.tolist() == found.cells["label"].tolist()
    assert len(found.outlines) == len(found.cells)
    if step == 1:
        assert found.photo == drawn.photo
        assert found.outlines == drawn.outlines
        assert found.labels.tolist() == drawn.labels.tolist()
    else:
        assert drawn.outlines == ()
    assert found.draw() is found
    assert found.shape == (32, 32)
    assert found.cells.equals(fitted.measure(smears.images[:1]))
    assert found.counts == segmented.count(excluded_sides=("bottom", "right"))


def test_the_photo_keeps_its_pixels_up_to_a_limit(fitted, smears):
    (segmented,) = fitted.segment(smears.images[:1])
    for max_pixels, size in ((2**24, (32, 32)), (32 * 32, (32, 32)), (300, (16, 16))):
        photo = ImageResult.of(segmented, "a", 0.5, max_pixels=max_pixels).photo
        assert Image.open(io.BytesIO(photo)).size == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_other_viewers_show_the_photo(orientation, tmp_path):
    y, x = np.mgrid[:60, :100]
    class_map = (2 * ((y - 20) ** 2 + (x - 30) ** 2 < 15**2)).astype(np.uint8)
    image = np.stack([2 * x, 4 * y, 50 + class_map], axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    (opened,) = check_sources([tmp_path / "a.png"])
    opened = opened.open()
    assert np.array_equal(opened.pixels, image)
    assert opened.orientation == orientation
    confidence = np.full((60, 100), 255, np.uint8)
    found = Segmented("a", image, class_map, confidence, None, orientation=orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    cell = upright[..., 2] == 52
    shown = ImageResult.of(found, "a", 0.5)
    in_notebook = found._repr_html_()
    embedded = base64.b64decode(in_notebook.partition("base64,")[2].partition('"')[0])
    for photo in (shown.photo, embedded):
        assert np.abs(np.asarray(Image.open(io.BytesIO(photo))).astype(int) - upright).max() < 12
    assert Image.open(io.BytesIO(shown.picture)).size == upright.shape[1::-1]
    ((_, path),) = shown.outlines
    assert path in in_notebook
    different = polygon2mask(cell.shape, _corners(path)[:, ::-1] - 0.5) != cell
    assert different.sum() <= 0.04 * cell.sum()
    assert shown.shape == cell.shape
    # Coordinates in tables are those of the pixels as they are stored.
    assert found.measure()["centroid_x"].round().tolist() == [30]


def test_the_viewer_outlines_each_cell_by_itself():
    y, x = np.mgrid[:60, :100]
    near, far = ((y - 30) ** 2 + (x - at) ** 2 < 20**2 for at in (32, 66))
    labels = np.where(near & (x < 49), 7, np.where(far, 9, 0))
    mask = (2 * (labels > 0)).astype(np.uint8)
    cells = table(("red", 40.04, 0.9, False), ("red", 39.0, 0.9, False)).assign(label=[7, 9])
    image = np.full((60, 100, 3), 200, np.uint8)
    shown = ImageResult("a.png", image, mask, labels, cells, (60, 100), 0.1)
    (view,) = views_of(render_report([shown], run={}))
    assert (view["width"], view["height"]) == (100, 60)
    photo = Image.open(io.BytesIO(base64.b64decode(view["photo"].partition("base64,")[2])))
    assert photo.size == (100, 60)
    assert np.abs(np.asarray(photo).astype(int) - 200).max() <= 2  # without outlines
    found = {label: (path, size) for of in view["classes"] for label, path, size in of["cells"]}
    assert [of["noun"] for of in view["classes"] if of["cells"]] == ["red cells"]
    assert found[7][1] == "40 px"
    for label, (path, _) in found.items():
        corners = _corners(path)[:, ::-1] - 0.5  # of pixels; their middles have whole numbers
        different = polygon2mask((60, 100), corners) != (labels == label)
        assert different.sum() <= 0.04 * (labels == label).sum()


def _corners(path):
    """Return the corners (k, 2) of a path of SVG: a place, and steps from it."""
    start, steps = re.fullmatch(r"M(-?\d+ -?\d+)l([-\d ]+)z", path).groups()
    numbers = [int(each) for each in f"{start} {steps}".split()]
    return np.cumsum(np.reshape(numbers, (-1, 2)), axis=0)


def test_cells_without_number_get_no_outline_in_a_smaller_copy():
    small = replace(result(), shape=(128, 128))
    (view,) = views_of(render_report([small], run={}))
    assert [of["cells"] for of in view["classes"]] == [[], []]
    assert view["width"] == 128


def test_too_many_outlines_are_left_out(monkeypatch):
    monkeypatch.setattr("bloodseg.reporting._view._MOST_OUTLINES", 1)
    (view,) = views_of(render_report([result()], run={}))
    assert [of["cells"] for of in view["classes"]] == [[], []]


def test_a_picture_needs_pixels():
    with raises("image and class_map of a.png must be there to draw a picture."):
        replace(result("a.png"), image=None).draw()


def test_names_that_are_no_text_are_escaped():
    page = render_report([result("a\udcff\u202e.png")], run={})
    assert Page(page).tables["images"][1][0] == r"a\udcff\u202e.png"
    page.encode("utf-8")


def test_what_is_refused():
    with raises("results must hold at least one image; got"):
        render_report([], run={})
    with raises(
        "results must know the size of a pixel for all images or for none; got some of each."
    ):
        render_report([result(), result(pixel_size=0.5)], run={})


STEPS = """
const said = [[...document.images].every((image) => image.naturalWidth > 0)];
said.push(document.querySelector("#sizes svg").getBoundingClientRect().height > 50);
const rows = () => [...document.querySelectorAll("#images tbody tr")];
const names = () => rows().filter((row) => !row.hidden).map((row) => row.querySelector("a").text);
const heads = document.querySelectorAll("#images thead button");
heads[2].click();
said.push(names().join(), heads[2].parentNode.ariaSort);
heads[2].click();
said.push(names().join(), heads[2].parentNode.ariaSort);
heads[0].click();
said.push(names().join());
const text = document.getElementById("filter");
text.value = "10.P";
text.dispatchEvent(new Event("input"));
said.push(names().join(), document.getElementById("shown").textContent);
text.value = "";
text.dispatchEvent(new Event("input"));
document.getElementById("only-doubted").click();
said.push(names().join());
document.getElementById("only-doubted").click();
document.querySelectorAll("figure a")[1].click();
const viewer = document.getElementById("viewer"), svg = viewer.querySelector("svg");
const key = (key) => viewer.dispatchEvent(new KeyboardEvent("keydown", { key }));
const zoomed = () => document.getElementById("zoom").textContent;
said.push(viewer.open, document.getElementById("viewed").textContent);
key("1");
said.push(zoomed());
key("+");
said.push(zoomed());
const left = () => Number(svg.getAttribute("viewBox").split(" ")[0]);
const before = left();
key("ArrowRight");
said.push(left() > before);
key("o");
said.push(svg.lastChild.style.display);
key("PageDown");
said.push(document.getElementById("viewed").textContent, svg.lastChild.style.display);
said.push(svg.querySelectorAll(".line").length);
viewer.querySelector("[data-action=close]").click();
said.push(viewer.open);
document.title = said.join(";");
"""


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_a_browser_sorts_filters_and_zooms(tmp_path):
    y, x = np.mgrid[:64, :64]
    labels = ((y - 30) ** 2 + (x - 30) ** 2 < 100).astype(int)
    other = replace(result("b.png", table(("red", 20.0, 0.7, False))), labels=labels)
    results = [result("a2 & b.png"), replace(other, class_map=(2 * labels).astype(np.uint8))]
    results.append(result("a10.png", table(), doubts=["it is grey"]))
    page = render_report(results, run={"model": "m"})
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", f"<script>{STEPS}</script></body>"), encoding="utf-8")
    shown = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    said = html.unescape(re.search(r"<head>.*?<title>(.*?)</title>", shown, re.DOTALL)[1])
    assert said.split(";") == [
        *("true", "true"),
        *("a10.png,b.png,a2 & b.png", "ascending", "a2 & b.png,b.png,a10.png", "descending"),
        "a2 & b.png,a10.png,b.png",
        *("a10.png", "1 of 3 images shown"),
        "a10.png",
        *("true", "a2 & b.png", "100 %", "150 %", "true", "none"),
        *("b.png", "none", "1", "false"),
    ]


FOUR = ("background", "white", "red", "platelet")


def test_further_classes_have_columns_tiles_and_words():
    cells = table(*CELLS, ("platelet", 9.0, 0.7, False))
    text = render_report([result(cells=cells, classes=FOUR)], run={})
    page = Page(text)
    assert page.tables["images"][0][:5] == ["image", "pixels", "red", "white", "platelet"]
    assert page.tables["images"][1][2:5] == ["2", "1", "1"]
    assert "2 red cells, 1 white cell, 1 platelet" in text
    assert "median diameter, platelet" in text
    assert "rgb(0, 158, 115)" in text
    named = table(*CELLS, ("parasite", 9.0, 0.7, False))
    classes = ("background", "white", "red", "parasite")
    text = render_report([result(cells=named, classes=classes)], run={})
    assert "1 white cell, parasite: 1" in text


def test_a_report_has_the_classes_of_one_model():
    results = [result(), result("other.png", classes=FOUR)]
    with raises("results must all have the same classes; got several. Report the images of each"):
        render_report(results, run={})
