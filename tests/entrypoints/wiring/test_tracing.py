"""When a mirror makes traces, and what it says if OpenTelemetry is not installed."""

import sys

import pytest

from adapters.telemetry.traces import OtelTracer
from application.ports.tracing import NoTracer
from entrypoints.settings import SettingsError
from entrypoints.wiring.tracing import open_tracer, prepare_tracing
from tests.e2e.support.processes import free_port
from tests.entrypoints.environment import Load


async def test_only_a_collector_turns_traces_on(load: Load) -> None:
    others = {"OTEL_SERVICE_NAME": "a", "OTEL_TRACES_SAMPLER": "always_on", "OTEL_RESOURCE_ATTRIBUTES": "a=b"}
    async with open_tracer(load(**others)) as tracer:
        assert isinstance(tracer, NoTracer)
    async with open_tracer(load(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")) as tracer:
        assert isinstance(tracer, OtelTracer)


def test_a_missing_package_is_one_clear_line(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "adapters.telemetry.traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    prepare_tracing(load())
    with pytest.raises(SettingsError) as refused:
        prepare_tracing(load(OTEL_EXPORTER_OTLP_ENDPOINT="http://traces.test:4318"))
    line = str(refused.value)
    assert line.startswith("OTEL_EXPORTER_OTLP_ENDPOINT: is set, but OpenTelemetry is not installed (")
    assert line.endswith("; install docker-image-proxy[otel], or remove the setting")
    assert "\n" not in line
