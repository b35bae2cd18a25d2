"""Sphinx's settings of the documentation site; ``make docs`` prepares the pages and builds it."""

from importlib.metadata import version as installed

project = "rankscope"
author = "the rankscope developers"
project_copyright = "2026, the rankscope developers"
release = version = installed("rankscope")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
root_doc = "index"
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"rankscope {version}"
html_copy_source = False
html_show_sourcelink = False
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "dollarmath"]
suppress_warnings = [
    "myst.header",  # a page may begin with the second level
    "misc.highlighting_failure",  # of shown output, which is in no language
]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring, napoleon_google_docstring = True, False
napoleon_use_rtype = False
default_role = "code"  # single backquotes in docstrings
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
