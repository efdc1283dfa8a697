"""The contract of MetricsPage."""

import re

from prometheus_client.parser import text_string_to_metric_families

from adapters.telemetry.metrics import CountingEventSink, SharedCounters
from application.ports.telemetry import MetricsPage


def _page() -> MetricsPage:
    return CountingEventSink(SharedCounters(2), 0)


def _text(page: MetricsPage) -> str:
    return b"".join(page.parts()).decode()


def test_the_page_has_the_prometheus_text_format() -> None:
    families = list(text_string_to_metric_families(_text(_page())))
    assert families
    assert all(family.documentation for family in families)
    assert "charset=utf-8" in _page().media_type


def test_all_names_have_the_same_prefix() -> None:
    names = re.findall(r"^([a-z_]+)", _text(_page()), re.MULTILINE)
    assert {name.startswith("docker_image_proxy_") for name in names} == {True}


def test_rendering_the_page_changes_nothing() -> None:
    page = _page()
    assert _text(page) == _text(page)
