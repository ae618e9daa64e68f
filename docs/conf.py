"""Sphinx settings: `sphinx-build -W docs docs/_build`."""

from bloodseg import __version__

project = "bloodseg"
author = "The bloodseg founders"
copyright = "2026, The bloodseg founders"
release = __version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"bloodseg {release}"

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's types say more: shapes and ranges
numpydoc_show_class_members = False
default_role = "any"
nitpicky = False
suppress_warnings = ["ref.any"]  # names of other packages, which have no inventory offline
myst_heading_anchors = 3
