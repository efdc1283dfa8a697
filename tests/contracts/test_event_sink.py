"""The contract of EventSink, and what the log must never contain."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import get_args, get_type_hints

import pytest
from dependency_injector import providers

from adapters.telemetry.event_log import EventFanOut, LoggingEventSink
from adapters.telemetry.metrics import CountingEventSink, SharedCounters
from application.access.grant_token import TokenQuery
from application.ports.telemetry import EventSink
from domain.access import Credentials, ScopeSet
from domain.authorization import encode_basic
from domain.errors import CredentialsRejected, UpstreamUnreachable
from domain.events import (
    AccountsReloaded,
    AccountsUnreadable,
    BackOffStarted,
    BodiesReceived,
    BytesDelivered,
    BytesFetched,
    CacheFull,
    CacheMeasured,
    CacheWriteFailed,
    ContentDamaged,
    ContentEvicted,
    ContentRequested,
    DigestMismatch,
    DownloadJoined,
    DownloadResumed,
    DownloadStarted,
    EndpointFailed,
    EndpointRecovered,
    Event,
    LoginDelayed,
    LoginRejected,
    OperatorActed,
    PinCheckFailed,
    PinMoved,
    PinsMeasured,
    PinsTooLarge,
    PullDenied,
    QueueLeft,
    RequestAnswered,
    ServiceNameConflict,
    SharedBytesReceived,
    SharedBytesStored,
    SharedContentEvicted,
    SharedDownloadStarted,
    SharedIndexLost,
    SharedIndexRecovered,
    SharedStoreAsked,
    SharedStoreLost,
    SharedStoreRecovered,
    SharedTierOpened,
    StaleServed,
    UpkeepFailed,
    UpstreamAnswered,
    UpstreamAuthLearned,
    UpstreamFailed,
)
from domain.records import ContentKind
from domain.value import Value, fields_of
from entrypoints.wiring.container import Container
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.parts import SECRET, container_of, settings_of
from tests.fakes.upstream import FakeUpstream

Maker = Callable[[], EventSink]
URL = "https://upstream.test"
DIGEST = "sha256:" + "a" * 64


def _counting() -> EventSink:
    return CountingEventSink(SharedCounters(1), 0)


def _fanned() -> EventSink:
    return EventFanOut([LoggingEventSink(), _counting()])


EACH = pytest.mark.parametrize("make", [LoggingEventSink, RecordingEventSink, _counting, _fanned])
EVENTS = [
    UpstreamAuthLearned(URL, 3, "relayed", is_change=False),
    BackOffStarted(URL, 30, "slow down"),
    UpstreamAuthLearned(URL, 2, "open", is_change=True),
    ServiceNameConflict(URL, "mirror"),
    UpstreamFailed(URL, "connection refused"),
    EndpointFailed(URL, "https://second.test", "connection refused"),
    EndpointRecovered(URL, "https://second.test"),
    DigestMismatch(URL, "library/nginx", DIGEST),
    PullDenied("alice", URL, "team/app"),
    AccountsReloaded(31),
    AccountsUnreadable("/etc/mirror/htpasswd: line 3 is not in the form user:hash"),
    LoginDelayed("alice", "192.0.2.7", 4),
    LoginRejected("alice", "192.0.2.7", 16),
    ContentRequested(ContentKind.BLOB, is_hit=True),
    DownloadStarted(),
    DownloadJoined(),
    DownloadResumed(URL, DIGEST, "connection reset"),
    BytesFetched(7),
    BytesDelivered(7),
    RequestAnswered("blob", "hit", URL, 0.5, 7, 0.25),
    UpstreamAnswered(URL, "blob", "ok", 0.5),
    QueueLeft(URL, 0.5),
    BodiesReceived(URL, 2**20, 0.5),
    CacheMeasured(1, 2, 3, 4, 5),
    StaleServed(URL, "connection refused"),
    ContentEvicted(3, 4096),
    SharedContentEvicted(3, 4096),
    ContentDamaged(DIGEST),
    CacheFull(DIGEST),
    CacheWriteFailed(DIGEST, "a partial blob cannot be opened: Too many open files"),
    UpkeepFailed("OSError: no such folder"),
    SharedTierOpened(),
    SharedStoreAsked("get", "missing"),
    SharedDownloadStarted("led"),
    SharedBytesReceived(7),
    SharedBytesStored(7),
    SharedStoreLost("s3://images", "s3://images: no answer within 2 s"),
    SharedStoreRecovered("s3://images"),
    SharedIndexLost("index.test:6379", "index.test:6379 did not answer within 250 ms"),
    SharedIndexRecovered("index.test:6379"),
    PinsMeasured(4096, 1),
    PinsTooLarge(8192, 4096),
    PinCheckFailed(URL, "team/app:1", "the upstream is unavailable"),
    PinMoved(URL, "team/app:1", DIGEST),
    OperatorActed("olga", "192.0.2.7", "purge", "docker.io/team/app:1", "5 removed"),
]
# These events are only counted, because they are too frequent for the log.
UNLOGGED = (
    ContentRequested,
    DownloadStarted,
    DownloadJoined,
    BytesFetched,
    BytesDelivered,
    RequestAnswered,
    UpstreamAnswered,
    QueueLeft,
    BodiesReceived,
    CacheMeasured,
    SharedTierOpened,
    SharedStoreAsked,
    SharedDownloadStarted,
    SharedBytesReceived,
    SharedBytesStored,
    PinsMeasured,
)
LEVELS = {
    "DEBUG": (StaleServed,),
    "INFO": (
        ContentEvicted,
        SharedContentEvicted,
        PullDenied,
        AccountsReloaded,
        LoginDelayed,
        LoginRejected,
        PinMoved,
        OperatorActed,
    ),
    "WARNING": (
        ServiceNameConflict,
        UpstreamFailed,
        EndpointFailed,
        EndpointRecovered,
        DownloadResumed,
        CacheFull,
        BackOffStarted,
        PinsTooLarge,
        PinCheckFailed,
        SharedStoreLost,
        SharedStoreRecovered,
        SharedIndexLost,
        SharedIndexRecovered,
    ),
    "ERROR": (AccountsUnreadable, DigestMismatch, ContentDamaged, CacheWriteFailed, UpkeepFailed),
}
ALICE = Credentials("alice", "opensesame")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, logger="docker_image_proxy"):
        yield caplog


def test_the_examples_contain_every_kind_of_event() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@EACH
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_kind_of_event_is_accepted(make: Maker, event: Event, log: pytest.LogCaptureFixture) -> None:
    sink = make()
    for _ in range(2):
        sink.emit(event)
    taken = sink.events if isinstance(sink, RecordingEventSink) else log.records
    is_silent = not isinstance(sink, RecordingEventSink) and isinstance(event, UNLOGGED)
    assert len(taken) == (0 if is_silent or isinstance(sink, CountingEventSink) else 2)


@EACH
def test_events_are_accepted_without_an_event_loop(make: Maker) -> None:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    make().emit(EVENTS[0])


@pytest.mark.parametrize("kind", get_args(Event))
def test_no_event_has_a_field_for_credentials(kind: type[Value]) -> None:
    hints = get_type_hints(kind)
    assert {hints[name] for name in kind.__struct_fields__} <= {str, int, float, float | None, bool, ContentKind}
    names = {"upstream", "endpoint", "row", "meaning", "is_change", "service", "reason", "repository", "digest"}
    counts = {"kind", "is_hit", "count", "size", "account", "address", "seconds", "role", "operation", "result"}
    measured = {"route", "first_byte_seconds", "limit", "free", "total"}
    audited = {"operator", "action", "subject"}
    pinned = {"image", "problems"}
    assert set(kind.__struct_fields__) <= names | counts | measured | audited | pinned


def _level(event: Event) -> str:
    if isinstance(event, UpstreamAuthLearned):
        return "WARNING" if event.is_change else "DEBUG"
    return next(level for level, kinds in LEVELS.items() if isinstance(event, kinds))


@pytest.mark.parametrize(
    "event", [one for one in EVENTS if not isinstance(one, UNLOGGED)], ids=lambda event: type(event).__name__
)
def test_the_log_line_contains_every_field_of_the_event(event: Event, log: pytest.LogCaptureFixture) -> None:
    LoggingEventSink().emit(event)
    (record,) = log.records
    assert (record.levelname, record.name) == (_level(event), "docker_image_proxy")
    metadata = fields_of(event).values()
    assert all(str(fact) in record.getMessage() for fact in metadata if not isinstance(fact, bool))


def test_text_of_an_upstream_stays_on_one_line(log: pytest.LogCaptureFixture) -> None:
    said = "gone\nWARNING https://upstream.test: all is well\r\x1b[2K"
    LoggingEventSink().emit(ServiceNameConflict(URL, said))
    LoggingEventSink().emit(UpstreamFailed(URL, said))
    LoggingEventSink().emit(EndpointFailed(URL, URL, said))
    LoggingEventSink().emit(DownloadResumed(URL, DIGEST, said))
    LoggingEventSink().emit(StaleServed(URL, said))
    LoggingEventSink().emit(PullDenied(said, URL, "team/app"))
    LoggingEventSink().emit(LoginDelayed(said, said, 1))
    LoggingEventSink().emit(LoginRejected(said, said, 1))
    assert [record.getMessage().isprintable() for record in log.records] == [True] * 8


def test_an_unknown_account_is_not_named(log: pytest.LogCaptureFixture) -> None:
    LoggingEventSink().emit(LoginDelayed("", "192.0.2.7", 1))
    assert "account (unknown) from 192.0.2.7" in log.text


@EACH
def test_a_repeater_emits_the_events_again(make: Maker, log: pytest.LogCaptureFixture) -> None:
    events = [RequestAnswered("manifest", "hit", URL, 0.5, 7), UpstreamFailed(URL, "refused")]
    sink = make()
    repeat = sink.repeater(events)
    assert repeat
    for _ in range(2):
        repeat(0.25)
    if isinstance(sink, RecordingEventSink):
        assert sink.events == events * 2
    elif isinstance(sink, CountingEventSink):
        assert b"request_seconds_sum" in b"".join(sink.parts())
        assert not log.records
    else:
        assert [record.getMessage() for record in log.records] == [f"{URL}: refused"] * 2


def test_several_sinks_receive_the_same_events_in_the_same_order() -> None:
    sinks = [RecordingEventSink() for _ in range(3)]
    for event in EVENTS:
        EventFanOut(sinks).emit(event)
    assert [sink.events for sink in sinks] == [EVENTS] * 3


@pytest.mark.parametrize("make", [LoggingEventSink, RecordingEventSink, _fanned])
async def test_credentials_never_reach_the_log(make: Maker, log: pytest.LogCaptureFixture) -> None:
    sink = make()
    await _live(sink)
    logged = "\n".join([log.text, *(repr(event) for event in getattr(sink, "events", []))])
    assert "trust row 7" in logged or "row=7" in logged
    assert "unreachable" in logged
    for secret in (ALICE.password, encode_basic(ALICE), "wrong", "upstream-token-of", SECRET, "eyJ"):
        assert secret not in logged


async def _live(sink: EventSink) -> None:
    """Emit the events of a correct login, a wrong login and an unreachable upstream."""
    upstream, clock = FakeUpstream(scheme="bearer", users={ALICE.username: ALICE.password}), StoppedClock()
    container = _container(upstream, clock, sink)
    scopes = ScopeSet.parse(["repository:a/b:pull"])
    grant, mirrored = container.grant_token(), container.upstream()
    assert (await grant(TokenQuery(scopes=scopes, credentials=ALICE))).text
    with pytest.raises(CredentialsRejected):
        await grant(TokenQuery(scopes=scopes, credentials=Credentials("alice", "wrong")))
    upstream.fault = UpstreamUnreachable("the upstream is unreachable")
    clock.advance(3600)
    await container.upstream_auth().row(mirrored)
    for _ in range(5):
        await asyncio.sleep(0)  # the probe runs in the background
    await container.upstream_auth().close()


def _container(upstream: FakeUpstream, clock: StoppedClock, sink: EventSink) -> Container:
    container = container_of(settings_of(accounts=encode_basic(ALICE)), upstream, clock)
    container.events.override(providers.Object(sink))
    return container
