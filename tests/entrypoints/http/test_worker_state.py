"""What a worker reports of itself."""

import asyncio
import time

import pytest

from entrypoints.http.worker_state import current_state, report_worker_state
from tests.application.support.watched import held
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import until

CONTENT = b"x" * 300_000


async def test_open_requests_and_files_are_reported(start: Start) -> None:
    service = await start()
    runtimes = service.client.app.ctx.runtimes
    before = current_state(runtimes, 3, 0.5)
    assert (before.requests, before.connections, before.loop_lag_seconds) == (0, 3, 0.5)
    assert 3 < before.open_files < before.max_open_files
    async with service.wire():
        await until(lambda: current_state(runtimes, 3, 0.5).open_files > before.open_files)
    with runtimes.current.in_use():
        assert current_state(runtimes, 3, 0.5).requests == 1


async def test_running_downloads_and_their_readers_are_reported(start: Start, tmp_path: object) -> None:
    service = await start(cache_dir=f"{tmp_path}/cache")
    digest = service.upstream.put_blob("team/app", CONTENT)
    gate = held(service.upstream)
    request = asyncio.create_task(service.get(f"/v2/team/app/blobs/{digest}"))
    runtimes = service.client.app.ctx.runtimes
    try:
        await until(lambda: current_state(runtimes, 0, 0.0).downloads == 1)
        state = current_state(runtimes, 0, 0.0)
        assert (state.readers, state.upstream_requests) == (1, {"https://upstream.test": 1})
    finally:
        gate.set()
    assert (await request).content == CONTENT
    await until(lambda: current_state(runtimes, 0, 0.0).downloads == 0)


async def test_a_reload_keeps_counting_what_began_before_it(start: Start) -> None:
    service = await start()
    runtimes = service.client.app.ctx.runtimes
    with runtimes.current.in_use():
        await runtimes.replace(runtimes.current.settings)
        with runtimes.current.in_use():
            assert current_state(runtimes, 0, 0.0).requests == 2
    await until(lambda: len(runtimes.open) == 1)


@pytest.mark.slow
async def test_a_blocked_event_loop_is_reported(start: Start) -> None:
    service = await start()
    task = asyncio.create_task(report_worker_state(service.client.app.ctx.runtimes, lambda: 7))

    def page() -> str:
        return b"".join(service.parts.metrics().parts()).decode()

    try:
        await until(lambda: "docker_image_proxy_client_connections 7.0" in page())
        assert 'event_loop_lag_seconds{worker="0"} 0.0' in page()
        await asyncio.sleep(0.7)
        time.sleep(0.8)  # noqa: ASYNC251 - it blocks the loop on purpose
        await until(lambda: 'event_loop_lag_seconds{worker="0"} 0.0\n' not in page())
    finally:
        task.cancel()
        await task
