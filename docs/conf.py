"""Sphinx settings: `sphinx-build -W docs docs/_build`."""

from pathlib import Path

from bloodseg import __version__

project = "bloodseg"
author = "The bloodseg founders"
copyright = "2026, The bloodseg founders"
release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinxarg.ext",
]
if (Path(__file__).parents[1] / "examples").is_dir():  # not where docs/ is copied alone
    extensions.append("sphinx_gallery.gen_gallery")
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "examples",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "write_computation_times": False,
    "min_reported_time": 1e9,  # seconds of the machine that builds the pages say little
}
exclude_patterns = ["_build", "examples/*.ipynb", "examples/*.py", "examples/*.md5"]
smartquotes_action = "qe"  # quotes and dots, but not dashes: --option stays as it is typed
html_theme = "furo"
html_title = f"bloodseg {release}"

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's types say more: shapes and ranges
templates_path = ["_templates"]
numpydoc_show_class_members = False  # the template of classes lists them
default_role = "py:obj"
myst_heading_anchors = 3
suppress_warnings = ["myst.domains"]  # sphinxarg's domain knows no references of Markdown
myst_enable_extensions = ["deflist"]

# A reference that leads nowhere fails the build, but for names of other packages, which have no
# inventory offline.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(cv2|joblib|numpy|sklearn|torch)\..*")]
