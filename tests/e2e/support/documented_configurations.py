"""The configuration files in docs/guides/clients."""

import re
from collections.abc import Mapping
from pathlib import Path

_PAGES = Path(__file__).parents[3] / "docs" / "guides" / "clients"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def block(page: str, language: str, number: int, replaced: Mapping[str, str]) -> str:
    """Block `number` (from 0) of the page in this language. Each key of `replaced` must occur in it."""
    found = _BLOCK.findall((_PAGES / f"{page}.md").read_text(encoding="utf-8"))
    text = str([text for kind, text in found if kind == language][number])
    for example, real in replaced.items():
        assert example in text, f"{page}.md, {language} block {number}: no {example!r} in\n{text}"
        text = text.replace(example, real)
    return text
