"""A request can be followed by its id: in the response, in the log and at the upstream."""

import json
import logging
import re
from pathlib import Path

import pytest

from adapters.telemetry.event_log import LoggingEventSink
from application.ports.telemetry import begin_record
from domain.events import UpstreamFailed
from entrypoints.http.requests.request_ids import RequestIds, without_tracing
from entrypoints.server.logging_setup import BatchingHandler, RequestIdFilter, formatter_of
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import until
from tests.fakes.upstream import FakeUpstream

PATH = "/v2/team/app/manifests/v1"
GET = f"GET {PATH} HTTP/1.1\nHost: a"
TRACE = "traceparent: 00-{}-00f067aa0ba902b7-01"


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_manifest("team/app", "v1", b'{"schemaVersion":2}')
    return upstream


async def test_an_id_that_the_client_sent_is_returned_and_logged(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = await (await start()).ask(f"{GET}\nX-Request-ID: build-7.pull_1")
    assert answer.all("x-request-id") == ["build-7.pull_1"]
    await until(lambda: any(record.name.endswith("access") for record in caplog.records))
    (line,) = [record for record in caplog.records if record.name.endswith("access")]
    assert line.request_id == "build-7.pull_1"
    assert line.getMessage().endswith(" request=build-7.pull_1")


@pytest.mark.parametrize(
    "fields",
    ["", "\nX-Request-ID: a b", f"\nX-Request-ID: {'a' * 65}", "\nX-Request-ID:", "\nX-Request-ID: a\nX-Request-ID: b"],
)
async def test_without_a_usable_id_the_request_gets_a_new_one(start: Start, fields: str) -> None:
    service = await start()
    ids = [(await service.ask(GET + fields)).get("x-request-id") or "" for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"[0-9a-f]{24}", one) for one in ids)


async def test_an_error_has_the_id_in_its_detail(start: Start) -> None:
    service = await start()
    for request in ("GET /v2/A/manifests/v1 HTTP/1.1", "GET /nowhere HTTP/1.1", "PUT /v2/a/manifests/v1 HTTP/1.1"):
        answer = await service.ask(f"{request}\nHost: a\nX-Request-ID: mine")
        assert json.loads(answer.body)["errors"][0]["detail"]["request_id"] == "mine"
    broken = await service.ask("BROKEN")
    assert json.loads(broken.body)["errors"][0]["detail"]["request_id"] == broken.get("x-request-id")


async def test_ids_and_traces_do_not_keep_a_response_from_the_response_cache(start: Start) -> None:
    service = await start()
    answers = service.client.app.ctx.runtimes.current.response_cache
    found, find = [], answers.find

    def watched(request: object) -> object:
        found.append(find(request))
        return found[-1]

    answers.find = watched
    requests = [f"{GET}\nX-Request-ID: id-{number}\n{TRACE.format(f'{number:032x}')}" for number in range(4)]
    ids = [(await service.ask(request)).get("x-request-id") for request in (GET, GET, *requests)]
    assert [answer is not None for answer in found[2:]] == [True] * 4
    assert ids[2:] == [f"id-{number}" for number in range(4)]
    other = await service.ask(f"{GET}\nAccept: a/b\nX-Request-ID: other")
    assert (other.status, found[-1]) == (200, None)


def test_only_the_fields_of_the_trace_are_left_out_of_the_key() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX-REQUEST-ID: 1\r\nX-Request-IDs: 2\r\ntracestate: x=y\r\nAccept: \xff"
    assert without_tracing(head) == b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-IDs: 2\r\nAccept: \xff"


def test_the_ids_of_two_workers_differ() -> None:
    one, other = RequestIds(), RequestIds()
    assert len({ids.id_of(()) for ids in (one, other) for _ in range(100)}) == 200


async def test_lines_about_a_request_have_its_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    begin_record("mine")
    LoggingEventSink().emit(UpstreamFailed("https://upstream.test", "refused"))
    (record,) = caplog.records
    assert RequestIdFilter().filter(record)
    assert (record.request_id, record.request_suffix) == ("mine", " request=mine")
    assert (record.event, record.upstream, record.reason) == ("UpstreamFailed", "https://upstream.test", "refused")


async def test_json_lines_have_the_documented_fields(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    guide = (Path(__file__).parents[3] / "docs" / "guides" / "operation.md").read_text()
    table = guide.partition("### Fields of JSON lines")[2].partition("\n\nThese names")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", table, re.MULTILINE)
    documented = {name for names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    await (await start()).ask(GET)
    await until(lambda: any(record.name.endswith("access") for record in caplog.records))
    (line,) = [record for record in caplog.records if record.name.endswith("access")]
    handler = BatchingHandler()
    handler.setFormatter(formatter_of("json"))
    fields = json.loads(handler.format(line)).keys()
    assert fields == documented - {"event", "trace_id", "span_id"}  # this line is about no event, and in no trace
    begin_record("mine")
    LoggingEventSink().emit(UpstreamFailed("https://upstream.test", "refused"))
    event = caplog.records[-1]
    RequestIdFilter().filter(event)
    common = {"time", "level", "name", "message", "request_id", "event"}
    assert json.loads(handler.format(event)).keys() == common | {"upstream", "reason"}
