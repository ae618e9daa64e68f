"""What napari is told of the plugin: that it is there, and that all it names exists."""

import importlib
from importlib import resources

import pytest
import yaml

from bloodseg.datasets._files import IMAGE_SUFFIXES


@pytest.fixture
def manifest():
    file = resources.files("bloodseg.napari").joinpath("napari.yaml")
    return yaml.safe_load(file.read_text())


def test_manifest_is_valid(manifest):
    npe2 = pytest.importorskip("npe2")
    assert npe2.PluginManifest(**manifest).name == "bloodseg"


def test_all_that_the_manifest_names_exists(manifest):
    given = manifest["contributions"]
    commands = {each["id"]: each["python_name"] for each in given["commands"]}
    used = [each["command"] for kind in given if kind != "commands" for each in given[kind]]
    assert sorted(used) == sorted(commands)
    for python_name in commands.values():
        module, _, name = python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_slides_of_all_formats_are_offered(manifest):
    (reader,) = manifest["contributions"]["readers"]
    # Photos stay napari's own: it would ask for each which plugin is to open it.
    photos = {".png", ".jpg", ".jpeg", ".bmp"}
    slides = {f"*{suffix}" for suffix in set(IMAGE_SUFFIXES) - photos}
    assert set(reader["filename_patterns"]) == slides | {"*.zarr", "*_mask.png", "*.geojson"}
