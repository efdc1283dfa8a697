"""The languages of the page, and its texts in each of them."""

import tomllib
from collections.abc import Mapping
from importlib.resources.abc import Traversable

from domain.value import Value

DEFAULT = "en"
LANGUAGES = {"en": "en", "zh": "zh-Hans"}
"""The languages with their `lang` attributes (BCP 47)."""


def language_for(accept_language: str) -> str:
    """The language that these values of Accept-Language (RFC 9110 section 12.5.4) prefer; DEFAULT if they name none of
    the languages.
    """
    best, language = 0.0, DEFAULT
    for part in accept_language[:512].split(","):
        tag, _, parameters = part.strip().partition(";")
        primary = tag.strip().lower().partition("-")[0]
        quality = _quality(parameters)
        if primary in LANGUAGES and quality > best:
            best, language = quality, primary
    return language


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return min(1.0, max(0.0, float(value)))
    except ValueError:
        return 0.0


class Texts(Value, frozen=True):
    """The texts of the page in one language, by their keys, such as `browse.title`."""

    language: str
    texts: Mapping[str, str]

    @property
    def lang(self) -> str:
        """The value of the `lang` attribute."""
        return LANGUAGES[self.language]

    def __call__(self, key: str, **values: object) -> str:
        """The text with the values in its places in braces. Raises KeyError for an unknown key or a missing value."""
        return self.texts[key].format(**values)


def read_texts(file: Traversable) -> dict[str, Texts]:
    """The texts of the file, by language. Each text is a table with one entry for each language."""
    groups = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        language: Texts(
            language,
            {f"{group}.{key}": text[language] for group, entries in groups.items() for key, text in entries.items()},
        )
        for language in LANGUAGES
    }
