"""Answers of an upstream that are as large as the mirror accepts, and in every form that is costly to read, hold the
event loop for about as long as it takes to read one plain list.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from domain.digest import Digest
from domain.errors import RegistryError
from domain.manifests import INDEX_MEDIA_TYPE, MANIFEST_LIMIT
from tests.application.support.ruled import CLOSED, ruled
from tests.application.support.service import Service, stocked
from tests.application.test_listings import referrers
from tests.fakes.upstream import FakeAnswer

pytestmark = pytest.mark.slow

ROOM = MANIFEST_LIMIT - 200


def listed(member: str, entry: bytes) -> bytes:
    return b'{"%s":[%s]}' % (member.encode(), b",".join([entry] * (ROOM // (len(entry) + 1))))


def named(member: str) -> bytes:
    names = b",".join(b'"team/app-%08d"' % number for number in range(ROOM // 20))
    return b'{"%s":[%s]}' % (member.encode(), names)


FORMS: dict[str, Callable[[str], bytes]] = {
    "names": named,
    "short names": lambda member: listed(member, b'"a"'),
    "empty objects": lambda member: listed(member, b"{}"),
    "empty lists": lambda member: listed(member, b"[]"),
    "nested lists": lambda member: listed(member, b"[" * 400 + b"]" * 400),
    "too deeply nested lists": lambda _: b"[" * (ROOM // 2) + b"]" * (ROOM // 2),
    "numbers": lambda member: listed(member, b"1.5e3"),
    "members": lambda _: b"{" + b",".join(b'"%06x":1' % number for number in range(ROOM // 11)) + b"}",
    "escapes": lambda member: b'{"%s":["%s"]}' % (member.encode(), b"\\u00e9" * (ROOM // 6)),
}


def seconds(step: Callable[[], object]) -> float:
    """CPU time of the fastest of three runs."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        step()
        times.append(time.thread_time() - began)
    return min(times)


async def longest_hold(action: Any) -> float:
    """The longest CPU time in seconds that passes in the event loop's thread between two turns of another task."""
    longest, last = 0.0, time.thread_time()
    task = asyncio.ensure_future(action)
    while not task.done():
        last = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - last)
    with suppress(RegistryError):
        await task
    return longest


ASKS: dict[str, tuple[str, Callable[[Service], Any]]] = {
    "catalog": ("repositories", lambda service: service.catalog()),
    "search": ("repositories", lambda service: service.search(term="zzz")),
    "tags": ("tags", lambda service: service.tags()),
    "referrers": ("manifests", referrers),
    "manifest": ("manifests", lambda service: service.manifest(reference="1")),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ask", ASKS)
def test_no_answer_holds_the_event_loop(ask: str, form: str) -> None:
    member, action = ASKS[ask]
    content = FORMS[form](member)
    assert MANIFEST_LIMIT * 0.9 < len(content) <= MANIFEST_LIMIT
    service = ruled(Service(stocked("none")), CLOSED)
    metadata = {"size": len(content), "digest": Digest.of(content)}
    if ask == "manifest":
        metadata["media_type"] = INDEX_MEDIA_TYPE
    service.upstream.alter = lambda answer: FakeAnswer(replace(answer.metadata, **metadata), content, len(content))
    plain = named("repositories")

    async def act() -> tuple[float, float]:
        held = min([await longest_hold(action(service)) for _ in range(2)])
        return held, seconds(lambda: json.loads(plain))

    held, one_list = service.run(act())
    assert held < 5 * one_list


def test_the_rules_are_applied_to_a_long_catalog_between_other_requests() -> None:
    names = [f"team/app-{number:08}" for number in range(20_000)]
    service = ruled(Service(stocked("none")), CLOSED)
    content = json.dumps({"repositories": [*names, "public/app"]}).encode()
    service.upstream.alter = lambda answer: FakeAnswer(
        replace(answer.metadata, size=len(content)), content, len(content)
    )
    plain = named("repositories")

    async def act() -> tuple[float, float]:
        held = await longest_hold(service.catalog())
        assert json.loads((await service.catalog()).content) == {"repositories": names}
        return held, seconds(lambda: json.loads(plain))

    held, one_list = service.run(act())
    assert held < 5 * one_list
