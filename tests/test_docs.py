"""The code of README.md, the guide and the examples runs, as a reader would run it.

And the pages say of the package what is so.
"""

import functools
import importlib
import inspect
import itertools
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
import webbrowser
from pathlib import Path

import matplotlib.pyplot
import pytest
import sklearn.model_selection
from PIL import Image

import bloodseg
from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.cli._arguments import _COMMANDS, make_parser
from bloodseg.datasets import make_smears

ROOT = Path(__file__).parents[1]
GUIDE = [
    f"docs/{name}.md"
    for name in re.findall(
        r"^([a-z]+)$", (ROOT / "docs/guide.md").read_text().partition(":hidden:")[2], re.MULTILINE
    )
]
WITH_COMMANDS = ["README.md", "docs/own-model.md", "docs/pretrained.md", "docs/study.md"]
WRITTEN = {  # by the code of a page
    "docs/counter.md": {"counter.safetensors"},
    "docs/deployment.md": {"cells.onnx", "model.safetensors"},
    "docs/files.md": {"annotated", "first.geojson", "smears"},
    "docs/slides.md": {"map.ome.tif", "slide.tif"},
    "docs/training.md": {"checkpoints", "smears"},
}


def blocks(page, language):
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


OTHERS = ["docs/extend.md", "docs/pretrained.md", "docs/solver.md"]
PAGES = [page for page in [*GUIDE, *OTHERS] if blocks(page, "python")]


def save_folder(folder, n_samples, seed):
    smears = make_smears(n_samples, image_size=32, random_state=seed, red_cell_diameter=12)
    for kind, pictures in (("images", smears.images), ("masks", smears.masks)):
        (folder / kind).mkdir(parents=True)
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / kind / f"{index}.png")
    rows = [f"{index},slide {index // 2}\n" for index in range(n_samples)]
    (folder / "groups.csv").write_text("image,group\n" + "".join(rows))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with tiny data, as the README and the examples ask for."""
    save_folder(tmp_path / "smears/train", 6, seed=0)
    save_folder(tmp_path / "smears/test", 2, seed=1)
    Image.fromarray(make_smears(1, 96, random_state=0).images[0]).save(tmp_path / "smear.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """Make fits small, and searches try the first value of each parameter alone."""
    for estimator in (BloodCellSegmenter, BloodCellCounter):
        small = {"width": 4, "max_epochs": 1, "crop_size": 32}
        tiny = {
            name: small.get(name, value)
            for name, value in estimator.__init__.__kwdefaults__.items()
        }
        monkeypatch.setattr(estimator.__init__, "__kwdefaults__", tiny)

    class SmallSearch(sklearn.model_selection.GridSearchCV):
        def __init__(self, estimator, param_grid, scoring=None, cv=None):
            first = {name: values[:1] for name, values in param_grid.items()}
            super().__init__(estimator, first, scoring=scoring, cv=cv)

    monkeypatch.setattr(sklearn.model_selection, "GridSearchCV", SmallSearch)


def run_blocks(page):
    """Run the Python blocks of a page one after the other, and return their names."""
    names = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page, "python"), start=1):
        exec(compile(block, f"{page}, python block {number}", "exec"), names)
    return names


@pytest.mark.usefixtures("small", "folder")
def test_readme_runs_in_order():
    names = run_blocks("README.md")
    assert names["segmenter"].width == 4
    assert [each.shape for each in names["maps"]] == [(32, 32)] * 6


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("small", "one_epoch")
def test_page_runs_as_it_stands(page, tmp_path, monkeypatch):
    """In an empty folder: what a block needs is made by those above it."""
    monkeypatch.chdir(tmp_path)
    names = run_blocks(page)
    matplotlib.pyplot.close("all")
    made = {path.name for path in tmp_path.iterdir()}
    assert made == WRITTEN.get(page, set())
    if page == "docs/classes.md":
        assert names["drawn"].counts[:, -1].any()  # platelets, which the page is about
    if page == "docs/pipelines.md":
        assert [each.shape for each in names["probabilities"]] == [(64, 64, 3)] * 6
        assert names["search"].cv_results_["mean_test_score"].shape == (1,)


@pytest.fixture
def one_epoch(monkeypatch):
    """Let fits end after an epoch, however many are asked for."""

    def shortened(fit):
        @functools.wraps(fit)  # metadata routing goes by the signature
        def fit_an_epoch(self, *data, **named):
            return fit(self.set_params(max_epochs=1), *data, **named)

        return fit_an_epoch

    for estimator in (BloodCellSegmenter, BloodCellCounter):
        monkeypatch.setattr(estimator, "fit", shortened(estimator.fit))


@pytest.mark.parametrize("page", ["README.md", "docs/own-model.md"])
@pytest.mark.usefixtures("one_epoch")
def test_commands_run_one_after_the_other(page, tmp_path, monkeypatch):
    """On the demo's smears, which are there from the first command on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", lambda address: True)
    lines = "".join(blocks(page, "bash")).splitlines()
    for line in ["bloodseg demo", *(line for line in lines if "bloodseg demo" not in line)]:
        program, *arguments = shlex.split(line, comments=True)
        if program == "bloodseg":
            assert main([*arguments, *(["--quick"] if arguments == ["demo"] else [])]) == 0, line
        elif program in ("cp", "mkdir"):
            subprocess.run(["bash", "-c", line], check=True)
    assert Path("report.html").exists()
    assert Path("scores/metrics.json").exists()


EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("plot_*.py"))


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.usefixtures("small", "one_epoch")
def test_example_runs(example, folder, monkeypatch):
    """As the docs run them, but for the sizes."""
    arguments = ["smear.jpg"] if "first_count" in example else []
    monkeypatch.setattr(sys, "argv", [example, *arguments])
    runpy.run_path(str(ROOT / f"examples/{example}.py"), run_name="__main__")
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("page", [*GUIDE, *WITH_COMMANDS])
def test_commands_are_ones_that_the_command_line_takes(page):
    lines = "".join(blocks(page, "bash")).splitlines()
    for line in lines:
        if line.startswith("bloodseg "):
            _, *arguments = shlex.split(line, comments=True)
            assert make_parser(arguments[0]).parse_args(arguments).command == arguments[0]
    assert page != "README.md" or any(line.startswith("bloodseg ") for line in lines)


@pytest.mark.parametrize("example", EXAMPLES)
def test_commands_that_examples_name(example):
    text = (ROOT / f"examples/{example}.py").read_text()
    for line in re.findall(r"``bloodseg (.+?)``", text, re.DOTALL):
        arguments = shlex.split(line)
        assert make_parser(arguments[0]).parse_args(arguments).command == arguments[0]


def test_table_of_commands_is_that_of_the_command_line():
    text = (ROOT / "docs/cli.md").read_text()
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE)) == _COMMANDS


def reference():
    """Return the names that each module has on the page of the reference."""
    names, module = {}, None
    for line in (ROOT / "docs/api.md").read_text().splitlines():
        if found := re.match(r"\.\. automodule:: (\S+)$", line):
            module = found[1]
            names[module] = set()
        elif found := re.match(r"\.\. py:data:: (\w+)$", line) or re.match(r"   (\w+)$", line):
            names[module].add(found[1])
    return names


# Where what `bloodseg` itself exports lies, and rooms that are the package's own business.
NOT_PUBLIC = {
    *("__main__", "cli", "estimators", "napari", "prediction", "preprocessing", "training"),
}


def test_what_is_public_is_what_the_reference_lists():
    listed = reference()
    rooms = {module.name for module in pkgutil.iter_modules(bloodseg.__path__)}
    public = {f"bloodseg.{room}" for room in rooms if not room.startswith("_")}
    assert listed.keys() == {"bloodseg", *public} - {f"bloodseg.{room}" for room in NOT_PUBLIC}
    for module, names in listed.items():
        exported = importlib.import_module(module).__all__
        assert names == {name for name in exported if name != "__version__"}, module
        assert len(exported) == len(set(exported))


def test_attributes_that_pages_name_are_in_the_reference():
    modules = [importlib.import_module(module) for module in reference()]
    public = [getattr(module, name) for module in modules for name in module.__all__]
    documented = " ".join(inspect.getdoc(each) or "" for each in public if inspect.isclass(each))
    known = set(re.findall(r"\b[a-z]\w*_\b", documented))
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        named = re.findall(r"`(?:\w+\.)?([a-z]\w*_)`", page.read_text())
        assert set(named) <= known, page


def test_table_of_rooms_is_that_of_the_contract():
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    contract = [
        (str(number), {room.strip() for room in layer.split("|")})
        for number, layer in enumerate(reversed(layers), start=1)
    ]
    rows = re.findall(
        r"^\| (\d+) \| `(\w+)` \| \S.*\|$", (ROOT / "docs/design.md").read_text(), re.MULTILINE
    )
    table = [
        (number, {room for _, room in rows})
        for number, rows in itertools.groupby(rows, key=lambda row: row[0])
    ]
    assert table == contract
