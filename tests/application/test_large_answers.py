"""No answer of an upstream holds the event loop for long, however large and whatever is in it."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from application.access.access_request import Caller
from application.concurrency import in_slices
from domain.access_rules import AccessRules, Effect
from domain.digest import Digest
from domain.errors import RegistryError
from domain.manifests import MANIFEST_LIMIT
from tests.application.support.ruled import rule, ruled
from tests.application.support.service import IMAGE_TYPE, NAME, REALM, Service, stocked
from tests.fakes.upstream import FakeAnswer

ROOM = MANIFEST_LIMIT - 1024
MANY_RULES = AccessRules(tuple(rule(Effect.DENY, f"upstream.test/no{number}/**/x*y") for number in range(20)))


def filled(head: str, part: str, tail: str) -> bytes:
    """As many parts as an answer may hold, separated by commas."""
    return (head + ",".join([part] * (ROOM // (len(part) + 1))) + tail).encode()


PARTS = {"lists": "[]", "objects": '{"a":1}', "strings": '"library/some-name"', "numbers": "1.5", "short": '"a"'}
SHAPES = {
    **{f"tags of {name}": filled('{"name":"x","tags":[', part, "]}") for name, part in PARTS.items()},
    **{f"repositories of {name}": filled('{"repositories":[', part, "]}") for name, part in PARTS.items()},
    **{f"manifests of {name}": filled('{"schemaVersion":2,"manifests":[', part, "]}") for name, part in PARTS.items()},
    "members": ("{" + ",".join(f'"{number:x}":[]' for number in range(350_000)) + "}").encode(),
    "nested": b"[" * ROOM,
}
ASKS: dict[str, Callable[[Service], Coroutine[Any, Any, Any]]] = {
    "tags": lambda service: service.tags(),
    "catalog": lambda service: service.catalog(),
    "referrers": lambda service: service.parts.listings().referrers(Caller(None, REALM), NAME, Digest.of(b"x"), ()),
    "manifest": lambda service: service.manifest(),
    "search": lambda service: service.parts.search()(Caller(None, REALM), "name", 25),
}


def answering(content: bytes) -> Service:
    service = ruled(Service(stocked("none")), MANY_RULES)

    def alter(answer: FakeAnswer) -> FakeAnswer:
        metadata = replace(answer.metadata, media_type=IMAGE_TYPE, digest=None, size=len(content))
        return FakeAnswer(metadata, content)

    service.upstream.alter = alter
    return service


async def longest_hold(action: Coroutine[Any, Any, Any]) -> float:
    """The longest CPU time between two turns of another task of the loop, in seconds."""
    longest = 0.0
    before = time.thread_time()

    async def look() -> None:
        nonlocal longest, before
        while True:
            await asyncio.sleep(0)
            longest, before = max(longest, time.thread_time() - before), time.thread_time()

    watching = asyncio.create_task(look())
    await asyncio.sleep(0)
    with suppress(RegistryError):  # a refusal is an answer too; how long it takes is what counts
        await action
    await asyncio.sleep(0)
    watching.cancel()
    return longest


def yardstick() -> float:
    """The CPU time that the machine needs now to read 4 MiB of strings, which it does at once everywhere."""
    text = filled("[", '"library/some-name"', "]")
    start = time.thread_time()
    json.loads(text)
    return time.thread_time() - start


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ask", ASKS)
def test_no_answer_holds_the_event_loop(ask: str, shape: str) -> None:
    """100 ms on a machine that reads 4 MiB of strings in 25 ms; the old code took a hundred times as long."""
    holds, ratios = [], []
    for _ in range(3):
        service = answering(SHAPES[shape])
        unit = yardstick()
        holds.append(service.run(longest_hold(ASKS[ask](service))))
        ratios.append(holds[-1] / unit)
        if ratios[-1] < 4:
            return
    raise AssertionError(f"the loop was held for {min(holds) * 1000:.0f} ms, {min(ratios):.1f} times the yardstick")


def test_long_work_lets_other_tasks_run() -> None:
    async def work() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        async for _ in in_slices(range(20)):
            time.sleep(0.005)  # noqa: ASYNC251 - stands for work
        counting.cancel()
        return turns

    assert asyncio.run(work()) >= 5
