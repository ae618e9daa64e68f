"""The gate beside behaviour: lint, types, layers, docs, packaging, licences, import time."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tarfile
import zipfile
import zlib
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import bloodseg

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.gate


def attribute(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def run(*command, cwd=ROOT):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("importlinter.cli", "lint"),
    ],
    ids=" ".join,
)
def test_tool_finds_nothing(command):
    if command[0] == "importlinter.cli":
        program = (
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as m; m()",
        )
    else:
        program = (sys.executable, "-m", *command)
    result = run(*program)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_room_is_asked_for_what_its_init_names():
    """How a room is divided into modules is its own affair."""
    package = ROOT / "bloodseg"
    for file in package.rglob("*.py"):
        here = ("bloodseg", *file.relative_to(package).parent.parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.ImportFrom) and node.module):
                continue
            asked = node.module.split(".")
            if node.level:
                asked = [*here[: len(here) - node.level + 1], *asked]
            inside = asked[0] == "bloodseg" and any(part.startswith("_") for part in asked[2:])
            assert not inside or asked[1] in here[1:2], (file, node.module)


def test_docs_build_without_warnings(tmp_path):
    """Dead references are warnings, too; and every public method has its place."""
    # Examples are run by tests/test_docs.py.
    options = ["-W", "-q", "-D", "plot_gallery=0", "-d", tmp_path / "tree"]
    result = run(sys.executable, "-m", "sphinx", *options, "docs", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    _, _, packed = (tmp_path / "objects.inv").read_bytes().partition(b"using zlib.\n")
    entries = zlib.decompress(packed).decode().splitlines()
    inventory = dict(entry.split()[:2] for entry in entries if entry.startswith("bloodseg."))
    methods = [name.rpartition(".") for name, role in inventory.items() if role == "py:method"]
    found = {(attribute(owner), name) for owner, _, name in methods}
    classes = {attribute(name) for name, role in inventory.items() if role == "py:class"}
    for each in classes:
        for name, value in inspect.getmembers(each, inspect.isroutine):
            ours = (getattr(value, "__module__", None) or "").startswith("bloodseg")
            assert name.startswith("_") or not ours or (each, name) in found, (each, name)
    assert (bloodseg.BloodCellSegmenter, "fit") in found


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    result = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ".")
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_wheel_holds_the_package_and_nothing_else(distributions):
    names = zipfile.ZipFile(distributions[0]).namelist()
    assert "bloodseg/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"bloodseg"}


def test_wheel_tells_napari_of_the_plugin(distributions):
    wheel = zipfile.ZipFile(distributions[0])
    (entries,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    line = "[napari.manifest]\nbloodseg = bloodseg.napari:napari.yaml\n"
    assert line in wheel.read(entries).decode()
    assert "bloodseg/napari/napari.yaml" in wheel.namelist()


def test_sdist_builds_the_same_wheel(distributions, tmp_path):
    wheel, sdist = distributions
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "CHANGELOG.md").exists()
    assert not (source / "tests").exists()  # they need what is in the repository alone
    result = run(
        sys.executable, "-m", "build", "--no-isolation", "-w", "-o", tmp_path, ".", cwd=source
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rebuilt = zipfile.ZipFile(tmp_path / wheel.name).namelist()
    assert sorted(rebuilt) == sorted(zipfile.ZipFile(wheel).namelist())


def test_wheel_installs_and_runs(distributions, tmp_path):
    result = run(
        sys.executable, "-m", "pip", "install", "--no-deps", "--target", tmp_path, distributions[0]
    )
    assert result.returncode == 0, result.stderr
    program = "import bloodseg; print(bloodseg.__file__); bloodseg.Preprocessor()"
    result = run(
        sys.executable, "-P", "-c", f"import sys; sys.path[0:0] = {[str(tmp_path)]}; {program}"
    )
    assert result.stdout.startswith(str(tmp_path)), result.stdout + result.stderr


@pytest.fixture(scope="module")
def stated(distributions):
    """The metadata that the wheel carries."""
    wheel = zipfile.ZipFile(distributions[0])
    (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    return message_from_bytes(wheel.read(name))


def test_version_and_names_are_said_alike_wherever_they_stand(stated):
    """pyproject.toml is the one place; CITATION.cff, which has a form of its own, agrees."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == stated["Version"] == bloodseg.__version__
    assert citation["license"] == stated["License-Expression"]
    assert citation["authors"] == [{"name": stated["Author"]}]
    assert set(citation["keywords"]) <= set(stated["Keywords"].split(","))
    assert str(Version(stated["Version"])) == stated["Version"]
    # A release has a date; what is on the way to one has none.
    assert Version(stated["Version"]).is_devrelease == ("date-released" not in citation)


def test_oldest_versions_promised_are_those_that_are_tested(stated):
    """`.ci/oldest` installs what constraints-oldest.txt says."""

    def holds(requirement, extra):
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    bounds = {
        requirement.name: [(each.operator, Version(each.version)) for each in requirement.specifier]
        for requirement in map(Requirement, stated.get_all("Requires-Dist"))
        for extra in {*stated.get_all("Provides-Extra"), ""} - {"dev", "docs"}
        if holds(requirement, extra) and requirement.name != "bloodseg"
    }
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    oldest = [Requirement(line) for line in lines if not line.startswith("#")]
    tested = {each.name: str(each.specifier) for each in oldest if holds(each, "")}
    assert bounds == {name: [(">=", Version(which[2:]))] for name, which in tested.items()}
    assert ".venv-oldest/bin/pip install" in (ROOT / ".ci/oldest").read_text()


def test_import_is_light_and_offline():
    """Nothing heavy at import, no socket opened by it, and no compiler loaded to predict."""
    light = "import sys, bloodseg; assert not {'torch', 'sklearn', 'cv2'} & set(sys.modules)"
    offline = (
        "import socket; socket.socket.connect = None;"
        "from bloodseg import *; import bloodseg.cli, bloodseg.datasets, bloodseg.training"
    )
    lean = (
        "import sys, numpy; from bloodseg import BloodCellSegmenter;"
        "BloodCellSegmenter.from_pretrained().predict(numpy.zeros((1, 32, 32, 3), numpy.uint8));"
        "assert 'torch._dynamo' not in sys.modules"  # 2 of 6 seconds until the first answer
    )
    for program in (light, offline, lean):
        result = run(sys.executable, "-c", program)
        assert result.returncode == 0, result.stderr


def test_no_dependency_is_under_gpl():
    seen, waiting = set(), ["bloodseg"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        short = (package.get("License") or "").splitlines()[:1]
        licence = " ".join(
            [*short, package.get("License-Expression") or "", *package.get_all("Classifier", [])]
        )
        found = re.findall(r"(?<!L)\bA?GPL[^;]*|GNU (?:Affero )?General Public", licence)
        assert not found, f"{name}: {found}"
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    assert "torch" in seen


def test_readme_opens_with_the_two_commands_and_ci_runs_the_second():
    text = (ROOT / "README.md").read_text()
    first, second = re.findall(r"^python3 -m venv .+$", text, flags=re.MULTILINE)[:2]
    assert first.endswith("bloodseg demo")
    assert second.endswith("pytest -n auto")
    assert text.index(second) < text.index("##")
    assert "grep -m1 '^python3 -m venv .venv-test ' README.md" in (ROOT / ".ci" / "run").read_text()
    assert second.startswith("python3 -m venv .venv-test ")
