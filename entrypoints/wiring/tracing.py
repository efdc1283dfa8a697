"""Builds the tracer, if the settings name a collector of traces."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from application.ports.tracing import NoTracer, Tracer
from entrypoints.settings import Settings, SettingsError
from entrypoints.version import NAME, VERSION


def prepare_tracing(settings: Settings) -> None:
    """Check, before any worker starts, that OpenTelemetry is installed if the settings need it. Raises SettingsError.
    Starts nothing, because the exporter's thread must start after the fork.
    """
    if settings.otel_exporter_otlp_endpoint is None:
        return
    try:
        import adapters.telemetry.traces  # noqa: F401, PLC0415 - imports OpenTelemetry
    except ImportError as error:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT: is set, but OpenTelemetry is not installed ({error}); "
            f"install {NAME}[otel], or remove the setting"
        ) from error


@asynccontextmanager
async def open_tracer(settings: Settings) -> AsyncIterator[Tracer]:
    """The tracer of one process. Its end sends the last spans, within a bounded time. Raises SettingsError."""
    endpoint = settings.otel_exporter_otlp_endpoint
    if endpoint is None:
        yield NoTracer()
        return
    prepare_tracing(settings)
    from adapters.telemetry.traces import TraceSampler, open_otlp_tracer  # noqa: PLC0415 - imports OpenTelemetry

    attributes = {
        "service.version": VERSION,
        **dict(settings.otel_resource_attributes),
        "service.name": settings.otel_service_name,
    }
    sampler = TraceSampler(settings.otel_traces_sampler, settings.otel_traces_sampler_arg)
    async with open_otlp_tracer(endpoint, dict(settings.otel_exporter_otlp_headers), attributes, sampler) as tracer:
        yield tracer
