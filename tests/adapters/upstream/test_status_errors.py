"""The errors for unsuccessful responses of an upstream."""

import json

import pytest

from application.ports.upstream import ForwardedCredentials
from domain.allowance import RateLimit
from domain.byte_ranges import ByteRange
from domain.challenge import Challenge
from domain.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RangeUnsatisfiable,
    ReferrersUnsupported,
    RegistryError,
    UpstreamBroken,
    UpstreamChallenged,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimedOut,
)
from tests.adapters.upstream.line import Line, in_loop, line
from tests.adapters.upstream.wire import Heard, Say, reply

JSON = ("Content-Type", "application/json")
DETAIL = [{"Type": "repository", "Class": "", "Name": "some/app", "Action": "pull"}]


def oci(code: str, message: str = "as the registry says", detail: object = None) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": detail}]}).encode()


async def refusal(link: Line, kind: str = "blob", **fetch: object) -> RegistryError:
    with pytest.raises(RegistryError) as refused:
        await link.fetch(kind, **fetch)
    return refused.value


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("manifest", ManifestUnknown),
        ("blob", BlobUnknown),
        ("tags", NameUnknown),
        ("catalog", NameUnknown),
        ("referrers", ReferrersUnsupported),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>404</html>", oci("UNKNOWN")])
@in_loop
async def test_404_is_about_what_was_asked(kind: str, expected: type[RegistryError], body: bytes) -> None:
    async with line(lambda _: reply(404, body=body)) as link:
        assert type(await refusal(link, kind)) is expected


REFERRERS_REFUSALS = [
    (404, b""),
    (405, b""),
    (405, b"<html>405</html>"),
    (501, b""),
    (400, oci("UNSUPPORTED")),
]


@pytest.mark.parametrize("is_redirected", [False, True])
@pytest.mark.parametrize(("status", "body"), REFERRERS_REFUSALS)
@in_loop
async def test_a_registry_without_referrers_is_recognized(*, status: int, body: bytes, is_redirected: bool) -> None:
    def script(heard: Heard) -> Say:
        if is_redirected and heard.target.startswith("/v2/"):
            return reply(302, ("Location", "/elsewhere"))
        return reply(status, body=body)

    async with line(script) as link:
        assert type(await refusal(link, "referrers")) is ReferrersUnsupported


@in_loop
async def test_a_deeply_nested_detail_is_left_out() -> None:
    body = b'{"errors":[{"code":"DENIED","detail":' + b"[" * 400 + b"]" * 400 + b"}]}"
    async with line(lambda _: reply(403, JSON, body=body)) as link:
        assert (await refusal(link, "manifest")).detail is None


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
@in_loop
async def test_a_detail_with_an_invalid_number_is_left_out(number: bytes) -> None:
    async with line(
        lambda _: reply(403, JSON, body=b'{"errors":[{"code":"DENIED","detail":' + number + b"}]}")
    ) as link:
        assert (await refusal(link, "manifest")).detail is None


@pytest.mark.parametrize("kind", ["manifest", "blob", "tags"])
@in_loop
async def test_404_may_be_about_the_repository(kind: str) -> None:
    async with line(lambda _: reply(404, JSON, body=oci("NAME_UNKNOWN"))) as link:
        assert type(await refusal(link, kind)) is NameUnknown


@pytest.mark.parametrize("head", [True, False])
@in_loop
async def test_404_to_a_head_is_one_too(*, head: bool) -> None:
    async with line(lambda _: reply(404, ("Content-Length", "0"))) as link:
        assert type(await refusal(link, "manifest", head=head)) is ManifestUnknown


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, UpstreamRejected),
        (403, Denied),
        (405, UpstreamRejected),
        (406, UpstreamRejected),
        (408, UpstreamTimedOut),
        (410, UpstreamRejected),
        (418, UpstreamRejected),
        (451, UpstreamRejected),
        (500, UpstreamBroken),
        (502, UpstreamBroken),
        (503, UpstreamBroken),
        (504, UpstreamTimedOut),
        (507, UpstreamBroken),
        (599, UpstreamBroken),
    ],
)
@in_loop
async def test_every_status_has_its_error(status: int, expected: type[RegistryError]) -> None:
    async with line(lambda _: reply(status, JSON, body=oci("ANY", detail=DETAIL))) as link:
        refused = await refusal(link)
        assert type(refused) is expected
        assert (refused.message, refused.detail) == ("as the registry says", DETAIL)


@pytest.mark.parametrize("detail", [DETAIL, {"Tag": "1"}, "text", 7, None, [], [1, [2, {"a": None}]]])
@in_loop
async def test_detail_may_be_any_json(detail: object) -> None:
    async with line(lambda _: reply(401, JSON, body=oci("UNAUTHORIZED", detail=detail))) as link:
        refused = await refusal(link)
        assert isinstance(refused, UpstreamChallenged)
        assert refused.detail == detail


@pytest.mark.parametrize(
    "body",
    [
        b"<html><script>alert(1)</script></html>",
        b"<?xml version='1.0'?><Error><Code>BlobNotFound</Code></Error>",
        b"Too Many Requests (HAP429)",
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b'{"errors":[]}',
        b'{"errors":null}',
        b'{"errors":{"code":"DENIED"}}',
        b'{"errors":["DENIED"]}',
        b'{"errors":[{"message":"no code"}]}',
        b'{"message":"of another kind"}',
        b"\xff\xfe\x00",
        b'{"errors":' + b" " * 70_000 + b'[{"code":"DENIED","message":"too far"}]}',
    ],
)
@in_loop
async def test_a_body_of_another_kind_is_not_forwarded(body: bytes) -> None:
    async with line(lambda _: reply(403, body=body)) as link:
        refused = await refusal(link)
        assert (type(refused), refused.message, refused.detail) == (Denied, "the upstream answered 403", None)


@in_loop
async def test_a_deeply_nested_body_is_ignored() -> None:
    async with line(lambda _: reply(403, JSON, body=b'{"errors":' + b"[" * 5000)) as link:
        assert type(await refusal(link)) is Denied


@pytest.mark.parametrize("then", ["hang", "close", "reset"])
@in_loop
async def test_the_status_counts_if_the_body_is_incomplete(then: str) -> None:
    async with line(
        lambda _: reply(404, ("Content-Length", "999"), body=b'{"errors":[', then=then), read_timeout=0.3
    ) as link:
        assert isinstance(await refusal(link), BlobUnknown | UpstreamTimedOut)


@in_loop
async def test_an_endless_error_page_is_not_read() -> None:
    page = reply(503, ("Content-Length", "99999999"), body=b"x" * 200_000, then="hang")
    async with line(lambda _: page) as link:
        refused = await refusal(link)
        assert (type(refused), refused.message) == (UpstreamBroken, "the upstream answered 503")


@in_loop
async def test_a_long_message_is_shortened() -> None:
    async with line(lambda _: reply(403, JSON, body=oci("DENIED", "x" * 5000))) as link:
        assert len((await refusal(link)).message) <= 512


@pytest.mark.parametrize("value", ["7", "Wed, 21 Oct 2026 07:28:00 GMT", None])
@pytest.mark.parametrize("body", [oci("TOOMANYREQUESTS"), b"Too Many Requests (HAP429)", b""])
@in_loop
async def test_429_says_when_to_come_back(value: str | None, body: bytes) -> None:
    headers = [("Retry-After", value)] if value else []
    async with line(lambda _: reply(429, *headers, body=body)) as link:
        refused = await refusal(link, "manifest")
        assert isinstance(refused, UpstreamThrottled)
        assert (refused.retry_after, refused.allowance) == (value, None)
        assert len(link.requests) == 1


@in_loop
async def test_429_says_what_is_left() -> None:
    headers = (("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600"))
    async with line(lambda _: reply(429, *headers, body=oci("TOOMANYREQUESTS"))) as link:
        refused = await refusal(link, "manifest")
        assert isinstance(refused, UpstreamThrottled)
        assert refused.allowance == RateLimit(100, 0, 21600)


@pytest.mark.parametrize(("value", "size"), [("bytes */20", 20), ("bytes 0-1/20", None), ("*/20", None), (None, None)])
@in_loop
async def test_416_says_how_large_the_whole_is(value: str | None, size: int | None) -> None:
    headers = [("Content-Range", value)] if value else []
    async with line(lambda _: reply(416, *headers)) as link:
        refused = await refusal(link, byte_range=ByteRange(99, None))
        assert isinstance(refused, RangeUnsatisfiable)
        assert refused.size == size


BEARER = Challenge.of("Bearer", realm="https://a.test/token", service="a", scope="repository:some/app:pull,push")
BASIC = Challenge.of("Basic", realm="an area, with a comma")


@pytest.mark.parametrize(
    "lines",
    [
        [f"{BEARER}", f"{BASIC}"],
        [f"{BEARER}, {BASIC}"],
        [f"{BEARER},{BASIC},"],
        [
            "bearer realm=https://a.test/token, service=a, scope=repository:some/app:pull,push",
            'BASIC realm="an area, with a comma"',
        ],
    ],
)
@in_loop
async def test_challenges_are_read_from_one_line_or_many(lines: list[str]) -> None:
    async with line(lambda _: reply(401, *(("WWW-Authenticate", one) for one in lines))) as link:
        refused = await refusal(link, credentials=ForwardedCredentials("Bearer stale"))
        assert isinstance(refused, UpstreamChallenged)
        challenges = [(one.scheme.lower(), one.parameters) for one in refused.challenges]
        assert challenges == [("bearer", BEARER.parameters), ("basic", BASIC.parameters)]


@in_loop
async def test_401_without_a_challenge_is_still_one() -> None:
    """gcr.io answers so on resources."""
    async with line(lambda _: Say(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")) as link:
        refused = await refusal(link)
        assert isinstance(refused, UpstreamChallenged)
        assert refused.challenges == ()


@pytest.mark.parametrize(
    ("realm", "absolute"),
    [
        ("/token", "{url}/token"),
        ("token?a=%2F", "{url}/v2/some/app/blobs/token?a=%2F"),
        ("//auth.test/token", "http://auth.test/token"),
        ("https://auth.test/token", "https://auth.test/token"),
        ("http://[", "http://["),
    ],
)
@in_loop
async def test_a_relative_realm_becomes_absolute(realm: str, absolute: str) -> None:
    lines = [("WWW-Authenticate", f'Bearer realm="{realm}"'), ("WWW-Authenticate", 'Basic realm="/no address"')]
    async with line(lambda _: reply(401, *lines)) as link:
        refused = await refusal(link)
        assert isinstance(refused, UpstreamChallenged)
        expected = [absolute.format(url=link.server.url), "/no address"]
        assert [challenge.get("realm") for challenge in refused.challenges] == expected
