"""The language of the page, and its texts."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from application.page.explain_pull import Reason, Sends, Verdict
from application.ports.jobs import JobKind, JobState
from domain.history import RESOLUTIONS, SPANS
from domain.image_details import read_image_configuration
from entrypoints.http.page import languages
from entrypoints.http.page.client_configurations import CLIENTS, Image, Mirror, Registry
from entrypoints.http.page.languages import LANGUAGES, language_for, read_texts
from entrypoints.http.page.routes import SECTIONS
from entrypoints.http.page.sections.history import CHARTS

PAGE = Path(languages.__file__).parent
TEXTS = PAGE / "texts.toml"

CONFIGURATION = json.dumps(
    {
        "os": "linux",
        "created": "now",
        "author": "Ann",
        "config": {
            "Entrypoint": ["a"],
            "Cmd": ["a"],
            "ExposedPorts": {"a": {}},
            "Volumes": {"a": {}},
            "User": "a",
            "WorkingDir": "a",
        },
    }
).encode()


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("de", "en"),
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh-Hant-TW", "zh"),
        ("en-GB,zh;q=0.9", "en"),
        ("de, zh;q=0.5, en;q=0.4", "zh"),
        ("en;q=0.1, ZH;q=0.2", "zh"),
        ("zh;q=0", "en"),
        ("zh;q=x", "en"),
        ("zh;q=nan", "en"),
        (",;=,zh;v=1", "zh"),
    ],
)
def test_the_browser_chooses_the_language(accepted: str, language: str) -> None:
    assert language_for(accepted) == language


def test_every_text_is_there_in_every_language() -> None:
    for group, entries in tomllib.loads(TEXTS.read_text(encoding="utf-8")).items():
        for key, text in entries.items():
            assert set(text) == set(LANGUAGES), f"{group}.{key}"
            assert all(words.strip() for words in text.values()), f"{group}.{key}"


def test_a_text_has_the_same_values_in_every_language() -> None:
    for group, entries in tomllib.loads(TEXTS.read_text(encoding="utf-8")).items():
        for key, text in entries.items():
            values = {language: sorted(re.findall(r"{(\w+)", words)) for language, words in text.items()}
            assert len(set(map(str, values.values()))) == 1, f"{group}.{key}: {values}"


def used() -> set[str]:
    """The keys that the templates and the sections use. A key that is put together at run time has a known beginning
    or end, and is expanded here.
    """
    sources = [path.read_text(encoding="utf-8") for path in PAGE.rglob("*") if path.suffix in {".html", ".py"}]
    known = tomllib.loads(TEXTS.read_text(encoding="utf-8"))
    pattern = rf"""["']((?:{"|".join(known)})\.(?!html|js)\w+)["']"""
    found = {key for source in sources for key in re.findall(pattern, source)}
    hub, quay = Registry("docker.io", "https://registry-1.docker.io"), Registry("quay.io", "https://quay.io", "quay.io")
    mirrors = [Mirror("a.test", False, (hub, quay), accounts) for accounts in (False, True)]
    found |= {
        f"steps.{step.meaning}"
        for client in CLIENTS.values()
        for mirror in mirrors
        for step in client(mirror, Image(hub, "library/nginx", ":1"))
    }
    facts = {f"fact.{name}" for name, _ in read_image_configuration(CONFIGURATION).facts}
    history = {f"history.{name}" for name in SPANS} | {f"history.per_{one.seconds}" for one in RESOLUTIONS}
    for chart, (_, series) in CHARTS.items():
        history |= {f"history.chart_{chart}", *(f"history.{name}" for name in series)}
    why = {f"why.because_{one.key}" for one in Reason} | {f"why.sends_{one.value}" for one in Sends}
    why |= {f"why.{one.value}" for one in Verdict} | {
        f"why.given_to_{one}" for one in ("anonymous", "mirrors", "personal")
    }
    found -= {"history.chart_", "history.per_", "why.because_", "why.sends_", "why.given_to_"}
    jobs = {f"jobs.{one.value}" for one in (*JobKind, *JobState)}
    return found | facts | history | why | jobs | {f"{section.name}.title" for section in SECTIONS}


def test_the_page_uses_every_text_and_no_other() -> None:
    known = {
        f"{group}.{key}"
        for group, entries in tomllib.loads(TEXTS.read_text(encoding="utf-8")).items()
        for key in entries
    }
    assert sorted(used() ^ known) == []


def test_texts_take_values_and_refuse_unknown_keys() -> None:
    texts = read_texts(TEXTS)
    assert texts["en"]("use_it.steps", client="docker", image="nginx") == "nginx with docker"
    assert texts["zh"].lang == "zh-Hans"
    with pytest.raises(KeyError):
        texts["en"]("use_it.absent")
    with pytest.raises(KeyError):
        texts["en"]("use_it.steps")
