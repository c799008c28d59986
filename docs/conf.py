"""Configuration of the documentation site: sphinx-build -W docs docs/_build/html."""

import skad

# What autodoc would list from the base classes of detectors, besides their own methods
BASES = ("BaseEstimator", "CallbackSupportMixin", "OutlierMixin", "TransformerMixin")

project = "skad"
author = copyright = "The skad developers"
release = version = skad.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "benchmarks"]
templates_path = ["_templates"]

# Pages, written in Markdown for a code host
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# API reference
autodoc_typehints = "none"  # docstrings have them
autodoc_default_options = {
    "members": True,
    "inherited-members": ",".join([*BASES, "Module", "tuple"]),
    "exclude-members": "get_metadata_routing,set_fit_request,set_output",
}
default_role = "py:obj"  # `name`: a link where there is such a name, else code
numpydoc_show_class_members = False
toc_object_entries_show_parents = "hide"

# Gallery: examples that draw a picture are run
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/(plot_\w+|roc_curve)\.py",
    "abort_on_example_error": True,
    "capture_repr": (),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "write_computation_times": False,
}

html_css_files = ["site.css"]
html_static_path = ["_static"]
html_theme = "pydata_sphinx_theme"
html_title = "skad"
html_show_sourcelink = False
html_sidebars = {"get_started": [], "benchmarks": []}  # they have no pages below
html_context = {"default_mode": "auto"}
html_theme_options = {
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}


def link_to_the_site(app, docname, source):
    """Turn links to README.md, as a code host needs them, into links to its page."""
    source[0] = source[0].replace("](../README.md", "](get_started.md")


def skip_fields(app, what, name, obj, skip, options):
    """Skip fields of named tuples: the docstring of the class describes them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    """Register what Sphinx calls."""
    app.connect("source-read", link_to_the_site)
    app.connect("autodoc-skip-member", skip_fields)
