"""Renders the page. The only module that imports Jinja2: a service whose page nobody opens does not import it."""

import asyncio
from collections.abc import Mapping
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from entrypoints.http.page import formats
from entrypoints.http.page.assets import Assets
from entrypoints.http.page.languages import language_for, read_texts

_PACKAGE = "entrypoints.http.page"


class Renderer:
    """The templates, texts and assets of the page. Reads files, so it is created in a thread."""

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
        self._compiled: set[str] = set()
        """The templates that have been rendered, so that they and those that they include are compiled."""

    async def render(self, template: str, accept_language: str, context: Mapping[str, object]) -> str:
        """The template in the language that the browser prefers. A template is first rendered in a thread, because it
        takes up to 0.1 seconds to compile it, in which the worker must serve pulls.
        """
        if template in self._compiled:
            return self._rendered(template, accept_language, context)
        text = await asyncio.to_thread(self._rendered, template, accept_language, context)
        self._compiled.add(template)
        return text

    def _rendered(self, template: str, accept_language: str, context: Mapping[str, object]) -> str:
        texts = self._texts[language_for(accept_language)]
        return self._environment.get_template(template).render(t=texts, **context)
