"""The service refuses requests whose framing another parser could read differently (request smuggling)."""

from collections.abc import Iterator

import pytest

from tests.e2e.support.raw_connections import PATIENCE, raw
from tests.e2e.support.service import Proxy, Serving

HOST = b"Host: a\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n"
GOOD = b"grant_type=password&username=a&password=b&service=x"


@pytest.fixture(scope="module")
def service(serve: Serving) -> Iterator[Proxy]:
    with serve(UPSTREAM_REGISTRY="http://127.0.0.1:9", ready="/livez") as proxy:
        yield proxy


def refused(service: Proxy, request: bytes) -> None:
    """Check that the answer is a 400 in the registry's format, and that the service then closes the connection."""
    with raw(service.port) as connection:
        connection.send(request + LIVEZ)
        assert connection.error() == (400, "UNSUPPORTED")
        assert connection.is_ended()
        with pytest.raises(EOFError):
            connection.answer()


HEADS = {
    "space before the colon": b"Content-Length : 0\r\n",
    "tab before the colon": b"X\t: 0\r\n",
    "space before the name": b" X: 0\r\n",
    "no name": b": 0\r\n",
    "no colon": b"X\r\n",
    "name that is no token": b"X(y): 0\r\n",
    "name beyond ASCII": "X\u00e9: 0\r\n".encode(),
    "folded line": b"X: 0\r\n 1\r\n",
    "bare LF in a value": b"X: 0\nY: 1\r\n",
    "bare CR in a value": b"X: 0\rY: 1\r\n",
    "NUL in a value": b"X: 0\x001\r\n",
    "NUL in a name": b"X\x00: 1\r\n",
    "full-width digits": "Content-Length: \uff10\r\n".encode(),
    "arabic digits": "Content-Length: \u0660\r\n".encode(),
    "length with a sign": b"Content-Length: +0\r\n",
    "length below zero": b"Content-Length: -1\r\n",
    "length with an underscore": b"Content-Length: 0_0\r\n",
    "length in hexadecimal": b"Content-Length: 0x0\r\n",
    "length with a space": b"Content-Length: 0 0\r\n",
    "no length": b"Content-Length:\r\n",
    "two lengths in one line": b"Content-Length: 0, 0\r\n",
    "two equal lengths": b"Content-Length: 0\r\nContent-Length: 0\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 5\r\n",
    "length and coding": b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    "coding and length": b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "other coding": b"Transfer-Encoding: gzip\r\n",
    "other coding first": b"Transfer-Encoding: gzip, chunked\r\n",
    "chunked twice": b"Transfer-Encoding: chunked, chunked\r\n",
    "chunked that is not": b"Transfer-Encoding: xchunked\r\n",
    "vertical tab before chunked": b"Transfer-Encoding: \x0bchunked\r\n",
    "no coding": b"Transfer-Encoding:\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "second Host": b"Host: b\r\n",
    "second equal Host": HOST,
}


@pytest.mark.parametrize("fields", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("first", ["GET /livez", "POST /v2/auth"])
def test_an_invalid_header_line_is_answered_400(service: Proxy, first: str, fields: bytes) -> None:
    refused(service, f"{first} HTTP/1.1\r\n".encode() + HOST + fields + b"\r\n")


LINES = {
    "no Host": b"GET /livez HTTP/1.1\r\n",
    "Host that is none": b"GET /livez HTTP/1.1\r\nHost: a b\r\n",
    "Host with a path": b"GET /livez HTTP/1.1\r\nHost: a/b\r\n",
    "coding in HTTP/1.0": b"GET /livez HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
    "two spaces": b"GET  /livez HTTP/1.1\r\nHost: a\r\n",
    "tab for a space": b"GET\t/livez HTTP/1.1\r\nHost: a\r\n",
    "space at the end": b"GET /livez HTTP/1.1 \r\nHost: a\r\n",
    "method that is no token": b"G(T /livez HTTP/1.1\r\nHost: a\r\n",
    "target beyond ASCII": "GET /livez\u00e9 HTTP/1.1\r\nHost: a\r\n".encode(),
    "control character in the target": b"GET /livez\x01 HTTP/1.1\r\nHost: a\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n",
    "HTTP/1.2": b"GET /livez HTTP/1.2\r\nHost: a\r\n",
    "small letters": b"GET /livez http/1.1\r\nHost: a\r\n",
}


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
def test_an_ambiguous_request_line_or_host_is_answered_400(service: Proxy, lines: bytes) -> None:
    refused(service, lines + b"\r\n")


@pytest.mark.parametrize("request_", [b"GET /livez HTTP/1.1\nHost: a\n\n", b"GET /livez HTTP/1.1\r\nHost: a\n\n"])
def test_lines_that_end_with_a_bare_lf_are_answered_400(service: Proxy, request_: bytes) -> None:
    with raw(service.port) as connection:
        connection.send(request_)
        assert connection.error() == (400, "UNSUPPORTED")
        assert connection.is_ended()


CHUNKS = {
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "0X": b"0X5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus": b"-1\r\nhello\r\n0\r\n\r\n",
    "underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "space behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "tab behind": b"5\t\r\nhello\r\n0\r\n\r\n",
    "space before an extension": b"5 ;a=b\r\nhello\r\n0\r\n\r\n",
    "full-width digit": "\uff15\r\nhello\r\n0\r\n\r\n".encode(),
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "only an extension": b";a=b\r\nhello\r\n0\r\n\r\n",
    "no hexadecimal digit": b"g\r\nhello\r\n0\r\n\r\n",
    "too many digits": b"0000000000000000005\r\nhello\r\n0\r\n\r\n",
    "bare LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "bytes behind the data": b"5\r\nhelloXX0\r\n\r\n",
    "more bytes behind the data": b"5\r\nhello world\r\n0\r\n\r\n",
    "bare LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "fields behind the body": b"5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "line of the size that does not end": b"5;" + b"a" * 400,
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("first", [b"GET /livez", b"POST /v2/auth"])
def test_invalid_chunked_framing_is_answered_400(service: Proxy, first: bytes, body: bytes) -> None:
    refused(service, first + b" HTTP/1.1\r\n" + HOST + FORM + b"Transfer-Encoding: chunked\r\n\r\n" + body)


@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD),
        b"Content-Length:\t %04d \r\n\r\n%b" % (len(GOOD), GOOD),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD),
        b"transfer-encoding: Chunked\r\n\r\n%04X;a=b\r\n%b\r\n00;c\r\n\r\n" % (len(GOOD), GOOD),
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (GOOD[:1], len(GOOD) - 1, GOOD[1:]),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_valid_request_is_read_in_pieces_of_each_size(service: Proxy, framed: bytes, step: int) -> None:
    request = b"POST /v2/auth HTTP/1.1\r\n" + HOST + FORM + framed
    with raw(service.port) as connection:
        for _ in range(2):
            for start in range(0, len(request), step):
                connection.send(request[start : start + step])
            # The upstream is unavailable: 502 or 503 shows that the form was read.
            status, headers, body = connection.answer()
            assert (status in {502, 503}, headers["connection"]) == (True, "keep-alive"), body
        connection.send(LIVEZ)
        assert connection.answer()[0] == 200


def test_the_body_is_read_even_if_the_answer_does_not_need_it(service: Proxy) -> None:
    with raw(service.port) as connection:
        for _ in range(3):
            connection.send(b"GET /livez HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello")
            assert connection.answer()[0] == 200
        assert not connection.is_ended(0.5)


@pytest.mark.parametrize(
    ("request_", "stays"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: TE\r\n\r\n", True),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, TE\r\n\r\n", True),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: TE, Close\r\n\r\n", False),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", False),
        (b"GET /livez HTTP/1.0\r\n\r\n", False),
        (b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_the_connection_header_decides_about_keep_alive(service: Proxy, request_: bytes, stays: bool) -> None:  # noqa: FBT001
    with raw(service.port) as connection:
        connection.send(request_)
        status, headers, _ = connection.answer()
        assert (status, headers["connection"]) == (200, "keep-alive" if stays else "close")
        assert connection.is_ended(0.3 if stays else PATIENCE) is not stays


INVALID = {
    "value": b"grant_type=password&username=\xff&password=b",
    "value, escaped": b"grant_type=password&username=%ff&password=b",
    "name": b"grant_type=password&\xff=a&password=b",
    "surrogate": b"grant_type=password&username=%ed%a0%80&password=b",
}


@pytest.mark.parametrize("form", INVALID.values(), ids=INVALID)
def test_a_form_that_is_not_utf_8_is_answered_400_without_a_traceback(service: Proxy, form: bytes) -> None:
    since = service.process.mark()
    with raw(service.port) as connection:
        for _ in range(2):
            connection.send(
                b"POST /v2/auth HTTP/1.1\r\n" + HOST + FORM + b"Content-Length: %d\r\n\r\n%b" % (len(form), form)
            )
            assert connection.error() == (400, "UNSUPPORTED")
    assert "Traceback" not in "\n".join(service.process.settled_lines(since))


ODD = {
    "content type with no UTF-8": b"POST /v2/auth HTTP/1.1\r\nHost: a\r\nContent-Type: \xff\r\nContent-Length: 0\r\n",
    "charset of a form": b"POST /v2/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"
    b"Content-Type: application/x-www-form-urlencoded; charset=nonsense\r\n",
    "boundary without a form": b"POST /v2/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"
    b"Content-Type: multipart/form-data\r\n",
    "Host with no UTF-8": b"GET /v2/ HTTP/1.1\r\nHost: \xff\r\n",
    "query with no UTF-8": b"GET /v2/_catalog?n=%ff HTTP/1.1\r\nHost: a\r\n",
    "ns with no UTF-8": b"GET /v2/a/manifests/1?ns=%ff HTTP/1.1\r\nHost: a\r\n",
    "scope with no UTF-8": b"GET /v2/auth?scope=%ff&service=%fe HTTP/1.1\r\nHost: a\r\n",
    "search with no UTF-8": b"GET /v1/search?q=%ff HTTP/1.1\r\nHost: a\r\n",
    "path with no UTF-8": b"GET /v2/%ff/manifests/1 HTTP/1.1\r\nHost: a\r\n",
    "prefix with no UTF-8": b"GET /%ff/v2/a/manifests/1 HTTP/1.1\r\nHost: a\r\n",
    "Basic that is no base64": b"GET /v2/auth HTTP/1.1\r\nHost: a\r\nAuthorization: Basic \xff\xfe\r\n",
    "Basic with no UTF-8": b"GET /v2/auth HTTP/1.1\r\nHost: a\r\nAuthorization: Basic //46/w==\r\n",
    "Bearer with no UTF-8": b"GET /v2/a/manifests/1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\r\n",
    "Accept with no UTF-8": b"GET /v2/a/manifests/1 HTTP/1.1\r\nHost: a\r\nAccept: \xff\r\n",
    "Range with no UTF-8": b"GET /v2/a/blobs/sha256:%b HTTP/1.1\r\nHost: a\r\nRange: bytes=\xff\r\n" % (b"0" * 64),
    "If-None-Match with no UTF-8": b"GET /v2/a/manifests/1 HTTP/1.1\r\nHost: a\r\nIf-None-Match: \xff\r\n",
    "cookie with no UTF-8": b"GET /livez HTTP/1.1\r\nHost: a\r\nCookie: \xff=\xfe\r\n",
    "X-Forwarded-For with no UTF-8": b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: \xff\r\n",
}


@pytest.mark.parametrize("head", ODD.values(), ids=ODD)
def test_header_bytes_that_are_not_utf_8_cause_no_server_error(service: Proxy, head: bytes) -> None:
    since = service.process.mark()
    with raw(service.port) as connection:
        connection.send(head + b"\r\n")
        assert connection.answer()[0] != 500
    with raw(service.port) as connection:
        connection.send(LIVEZ)
        assert connection.answer()[0] == 200
    lines = "\n".join(service.process.settled_lines(since))
    assert "Traceback" not in lines
    assert "Error" not in lines
