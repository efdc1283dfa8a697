"""Configuration of the documentation site. `scripts/docs` builds and serves it, `scripts/test` builds it."""

from entrypoints.version import NAME, VERSION

project = NAME
release = VERSION
html_title = f"{project} {release}"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
# The same anchors as on GitHub, so that a link to a heading works on the site and in the repository.
myst_heading_anchors = 4
html_theme = "furo"
html_static_path = []
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
