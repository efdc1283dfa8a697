"""Renders the page. The only module that imports Jinja2: a service whose page nobody opens does not import it."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from jinja2 import Environment, FunctionLoader, StrictUndefined

from entrypoints.http.page import formats
from entrypoints.http.page.assets import Assets
from entrypoints.http.page.languages import language_for, read_texts

_PACKAGE = "entrypoints.http.page"


class Renderer:
    """The templates, texts and assets of the page. Reads files and compiles templates, so it is created in a thread."""

    def __init__(self) -> None:
        package = files(_PACKAGE)
        self.assets = Assets(package / "static")
        self._texts = read_texts(package / "texts.toml")
        templates = package / "templates"
        self._environment = Environment(
            autoescape=True,
            loader=FunctionLoader(lambda name: templates.joinpath(name).read_text(encoding="utf-8")),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= formats.FILTERS
        self._environment.globals["asset"] = self.assets.path
        for name in _names(templates):
            self._environment.get_template(name)

    def render(self, template: str, accept_language: str, context: Mapping[str, object]) -> str:
        """The template in the language that the browser prefers."""
        texts = self._texts[language_for(accept_language)]
        return self._environment.get_template(template).render(t=texts, **context)


def _names(folder: Traversable, path: str = "") -> Iterator[str]:
    """The templates below the folder."""
    for one in folder.iterdir():
        if one.is_dir():
            yield from _names(one, f"{path}{one.name}/")
        else:
            yield path + one.name
