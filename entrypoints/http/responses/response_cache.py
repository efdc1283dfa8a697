"""ResponseCache: repeats a response for a request with exactly the same bytes, without processing the request again.

The same clients request the same few manifests thousands of times, byte for byte. To parse such a request, verify its
token, check that its tag is fresh and format the same headers costs several times as much as all of Sanic. So
complete responses are kept, and their key is the whole head of the request: method, path, token, Accept and all other
fields except its id and its trace (request_ids.py). A response is valid as long as everything is valid that it was
made from; the application returns that time.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from sanic import Request, Sanic
from sanic.headers import format_http1_response
from sanic.http.constants import Stage
from sanic.http.http1 import Http
from sanic.response import HTTPResponse

from application.concurrency import LruCache
from application.ports.pull_log import PullLog
from application.ports.telemetry import EventSink, RequestRecord
from domain.account_policy import AccountPolicy
from domain.authorization import Basic, UnsupportedAuthorization, parse_authorization
from domain.events import BytesDelivered, ContentRequested, Event, RequestAnswered
from domain.ports import Clock
from domain.records import ContentKind
from domain.value import Value
from entrypoints.http import access_log
from entrypoints.http.access_log import BodyOutcome
from entrypoints.http.requests.addresses import plain_address

_MEMORY = 16 * 1024 * 1024
"""Bytes in each worker."""
_REQUEST_ID = b"x-request-id"
_LONGEST_SECONDS = 5.0
"""Then the request is processed again: another worker may have met a refusal, or an operator purged the image."""


class CachedResponse(Value, frozen=True):
    """A response as it is written to the connection, in the two parts before and after the id of the request, with its
    data for the access log and the metrics. `record` has the account, if there is one, and the stamp of the account
    when its token was verified. `count`: counts the response in the metrics; called with the seconds that it took.
    """

    beginning: bytes
    end: bytes
    status: int
    good_until: float
    outcome: BodyOutcome
    record: RequestRecord
    count: Callable[[float], None]


class ResponseCache:
    """An LRU cache with a limit in bytes."""

    def __init__(self, clock: Clock, events: EventSink, accounts: AccountPolicy, pull_log: PullLog) -> None:
        self._clock = clock
        self._events = events
        self.pull_log = pull_log
        self._accounts = accounts
        self._answers: LruCache[bytes, CachedResponse] = LruCache(_MEMORY)

    def find(self, request: Request[Any, Any]) -> CachedResponse | None:
        answer = self._answers.get(cast("Any", request).key)
        if answer is None or self._clock.now() >= answer.good_until:
            return None
        account = answer.record.account
        # A removed account loses access at once, not when its last response expires.
        return answer if not account or self._accounts.stamp(account) == answer.record.account_stamp else None

    def keep(self, request: Request[Any, Any], response: HTTPResponse, good_until: float) -> None:
        """Store a complete response. Not stored: the last response of a connection, and responses to requests with a
        password, whether it was checked here or upstream. A cached response to the right password would tell an
        attacker at once that it is right, without the delays of LoginAttempts.
        """
        stream = cast("Http", request.stream)
        if not stream.keep_alive or stream.request_body or good_until <= self._clock.now():
            return
        if isinstance(parse_authorization(request.headers.get("authorization")), Basic | UnsupportedAuthorization):
            return
        made: RequestRecord = request.ctx.record
        record = RequestRecord(
            made.account,
            made.account_stamp,
            upstream=made.upstream,
            result="hit" if request.method == "GET" else "",
            pull=replace(made.pull, is_hit=True) if made.pull else None,
        )
        if record.account and not record.account_stamp:
            return
        body = b"" if stream.head_only else response.body or b""
        headers = [pair for pair in response.processed_headers if pair[0].lower() != _REQUEST_ID]
        head = format_http1_response(response.status, [*headers, (b"connection", b"keep-alive")])
        status_line, _, rest = head.partition(b"\r\n")
        until = min(good_until, self._clock.now() + _LONGEST_SECONDS)
        events: list[Event] = [
            RequestAnswered(request.ctx.route, record.result or "ok", record.upstream, 0.0, len(body))
        ]
        if body:
            events += [ContentRequested(ContentKind.MANIFEST, is_hit=True), BytesDelivered(len(body))]
        count = self._events.repeater(events) or _count_nothing
        beginning = status_line + b"\r\n" + _REQUEST_ID + b": "
        answer = CachedResponse(
            beginning, b"\r\n" + rest + body, response.status, until, BodyOutcome(len(body)), record, count
        )
        key: bytes = cast("Any", request).key
        self._answers.put(key, answer, len(key) + len(body) + len(rest))


def _count_nothing(_: float) -> None:
    """For a sink that ignores the events of responses."""


class CachingSanic(Sanic[Any, Any]):
    """Sanic with a ResponseCache: a request with a cached response skips the router and the middleware."""

    async def handle_request(self, request: Request[Any, Any]) -> None:  # no cov
        runtime = self.ctx.runtimes.current
        response_cache: ResponseCache = runtime.response_cache
        stream = cast("Http", request.stream)
        # A request body must be read before the response: the next request begins after it.
        answer = response_cache.find(request) if not self.ctx.is_stopping and not stream.request_body else None
        if answer is None:
            # A reload during the request does not change its runtime.
            request.ctx.runtime = runtime
            with runtime.in_use():
                await super().handle_request(request)
            return
        stream.stage = Stage.IDLE
        request_id: str = cast("Any", request).request_id
        wire = answer.beginning + request_id.encode() + answer.end
        await stream._send(wire)  # noqa: SLF001 - as Sanic's own stream sends a complete response
        seconds = time.perf_counter() - (stream.perft0 or 0.0)
        answer.count(seconds)
        record = answer.record
        if record.pull:
            address = plain_address(request.ip)
            response_cache.pull_log.add(record.pull, record.account, address, seconds, answer.outcome.size)
        access_log.write(request, answer.status, answer.outcome, seconds, record, request_id)
