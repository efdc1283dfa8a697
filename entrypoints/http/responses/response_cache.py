"""ResponseCache: the same request again, answered with the same bytes, without being understood anew.

A mirror is asked for the same few manifests by the same clients, byte for byte, thousands of times. To take such a
request apart, find that its token is good and its tag fresh, and print the same headers again costs several times
what all of Sanic costs. So the finished answer is kept, under the whole head of the request: method, path, token,
what is accepted, everything. It is good as long as everything is that it came from: the application says until when.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from sanic import Request, Sanic
from sanic.headers import format_http1_response
from sanic.http.constants import Stage
from sanic.http.http1 import Http
from sanic.response import HTTPResponse

from application.concurrency import LruCache
from application.ports.telemetry import EventSink, RequestRecord
from domain.account_policy import AccountPolicy
from domain.authorization import Basic, Unreadable, parse_authorization
from domain.events import BytesDelivered, ContentAsked, Event
from domain.ports import Clock
from domain.records import ContentKind
from entrypoints.http import access_log
from entrypoints.http.access_log import Sent
from entrypoints.http.connection.framing import has_body

_MEMORY = 16 * 1024 * 1024
"""Bytes in each worker."""
_LONGEST_SECONDS = 5.0
"""Then it is looked again whether another worker has met a refusal, or an operator purged the image."""


@dataclass(frozen=True)
class CachedResponse:
    """One answer as it goes over the wire, and what the log and the counters are to know of it. `record` holds the
    account that it was given to, if it was one, and its stamp when its token was checked.
    """

    wire: bytes
    status: int
    good_until: float
    sent: Sent
    record: RequestRecord
    events: tuple[Event, ...]


class ResponseCache:
    """Bounded; whatever is not asked for makes room."""

    def __init__(self, clock: Clock, events: EventSink, accounts: AccountPolicy) -> None:
        self._clock = clock
        self._events = events
        self._accounts = accounts
        self._answers: LruCache[bytes, CachedResponse] = LruCache(_MEMORY)

    def find(self, request: Request[Any, Any]) -> CachedResponse | None:
        answer = self._answers.get(request.head)
        if answer is None or self._clock.now() >= answer.good_until:
            return None
        # An account that is removed is nobody's at once, and not when its last answer has become cold.
        return answer if self._stamp(answer.record.account) == answer.record.account_stamp else None

    def keep(self, request: Request[Any, Any], response: HTTPResponse, good_until: float) -> None:
        """Called when the answer is complete. Nothing is kept of a connection that ends with it, nor for a password,
        whether it was checked here or upstream: whoever guesses passwords would be told at once, and as often as he
        likes, which one is right, past all that slows him (LoginAttempts).
        """
        stream = cast("Http", request.stream)
        if not stream.keep_alive or stream.request_body or good_until <= self._clock.now():
            return
        if isinstance(parse_authorization(request.headers.get("authorization")), Basic | Unreadable):
            return
        body = b"" if stream.head_only else response.body or b""
        wire = format_http1_response(response.status, _headers(response)) + body
        until = min(good_until, self._clock.now() + _LONGEST_SECONDS)
        events = (ContentAsked(ContentKind.MANIFEST, is_hit=True), BytesDelivered(len(body))) if body else ()
        account, stamp = request.ctx.record.account, request.ctx.record.account_stamp
        if account and not stamp:
            return
        record = RequestRecord(account, stamp)
        answer = CachedResponse(wire, response.status, until, Sent(len(body)), record, events)
        self._answers.put(request.head, answer, len(request.head) + len(wire))

    def _stamp(self, account: str | None) -> str:
        return self._accounts.stamp(account) if account else ""

    def counted(self, answer: CachedResponse) -> None:
        for event in answer.events:
            self._events.emit(event)


def _headers(response: HTTPResponse) -> Iterator[tuple[bytes, bytes]]:
    yield from response.processed_headers
    yield b"connection", b"keep-alive"


class CachingSanic(Sanic[Any, Any]):
    """Sanic, but for requests whose answer is at hand: those pass neither router nor middleware."""

    async def handle_request(self, request: Request[Any, Any]) -> None:  # no cov
        part_set = self.ctx.part_sets.current
        response_cache: ResponseCache = part_set.response_cache
        stream = cast("Http", request.stream)
        # A body is read before its request is answered: the next request begins behind it.
        answer = response_cache.find(request) if not self.ctx.is_stopping and not has_body(stream) else None
        if answer is None:
            # What the settings say stays the same for this request, whatever is reloaded meanwhile.
            request.ctx.part_set = part_set
            part_set.enter()
            try:
                await super().handle_request(request)
            finally:
                part_set.leave()
            return
        stream.stage = Stage.IDLE
        await stream._send(answer.wire)  # noqa: SLF001 - as Sanic's own stream does when an answer is complete
        response_cache.counted(answer)
        seconds = time.perf_counter() - (stream.perft0 or 0.0)
        access_log.write(request, answer.status, answer.sent, seconds, answer.record)
