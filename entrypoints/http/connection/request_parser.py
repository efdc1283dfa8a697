"""StrictHttp: parses requests, and rejects those whose framing is ambiguous.

If a proxy in front of the mirror reads a length, a line end or a field name differently, the rest of one client's
request becomes the beginning of another's (request smuggling). Sanic's own parser is lenient: it accepts a space before
the colon, digits that are not ASCII, `0x5` as the size of a chunk, and any two bytes after a chunk.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from sanic.compat import Header
from sanic.exceptions import BadRequest, ExpectationFailed, NotFound, PayloadTooLarge
from sanic.http.constants import Stage
from sanic.http.http1 import HTTP_CONTINUE, Http

from entrypoints.http.connection.connection_table import ConnectionState

CHUNKED = "chunked"
METRICS_PORT_PATHS = ("/metrics", "/livez", "/readyz")

# RFC 9110 section 5.6.2. Field values are not matched by a regular expression: for a token of a kilobyte that would
# take longer than the rest of the head.
_GRAMMAR = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME = re.compile(_GRAMMAR)
_REQUEST_LINE = re.compile(rf"{_GRAMMAR} [\x21-\x7e]+ HTTP/1\.[01]")
_USUAL = ("Accept", "Accept-Encoding", "Authorization", "Connection", "Content-Length", "Content-Type", "Host", "Range")
_KNOWN_NAMES = frozenset({*_USUAL, *map(str.lower, _USUAL), "User-Agent", "user-agent"})
_BARE_LF = re.compile(rb"(?<!\r)\n")
# RFC 3986 section 3.2.2, without characters that no host name has; empty if the target has no authority.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
_LENGTH = re.compile(r"[0-9]+", re.ASCII)
_LONGEST_LENGTH = 18
"""Digits. A longer number is larger than any disk."""
# RFC 9112 section 7.1, without white space before an extension, which only older versions of HTTP allowed.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_LONGEST_CHUNK_LINE = 256
_LINE_END = 2
"""Bytes."""
_FRAMING = frozenset({"connection", "content-length", "host", "transfer-encoding"})


def body_framing(is_old: bool, found: Mapping[str, Sequence[str]]) -> int | str | None:  # noqa: FBT001
    """How the body is delimited: its length in bytes, CHUNKED, or None if there is no body. `is_old`: the request is
    HTTP/1.0. `found` has the values of the framing fields by lower-case name.

    Raises BadRequest for ambiguous framing (RFC 9112 sections 6.1 and 6.3) and for an invalid length.
    """
    codings, lengths = found.get("transfer-encoding", ()), found.get("content-length", ())
    if codings:
        if lengths:
            raise BadRequest("the request has both Content-Length and Transfer-Encoding")
        if is_old:
            raise BadRequest("HTTP/1.0 does not support Transfer-Encoding")
        if len(codings) > 1 or codings[0].lower() != CHUNKED:
            raise BadRequest("the Transfer-Encoding of the request is not chunked")
        return CHUNKED
    if not lengths:
        return None
    if len(lengths) > 1:
        raise BadRequest("the request has more than one Content-Length field")
    if not _LENGTH.fullmatch(lengths[0]):
        raise BadRequest("the Content-Length of the request is not a number of bytes")
    digits = lengths[0].lstrip("0")
    return int(digits or "0") if len(digits) <= _LONGEST_LENGTH else 10**_LONGEST_LENGTH


def _check_host(is_old: bool, hosts: Sequence[str]) -> None:  # noqa: FBT001
    """RFC 9112 section 3.2. Raises BadRequest."""
    if len(hosts) > 1:
        raise BadRequest("the request has more than one Host field")
    if not hosts and not is_old:
        raise BadRequest("the request has no Host field")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise BadRequest("the Host of the request is not a host or host:port")


def _stays_open(is_old: bool, lines: Sequence[str]) -> bool:  # noqa: FBT001
    """RFC 9112 section 9.3."""
    options = {option.strip().lower() for line in lines for option in line.split(",")}
    return "close" not in options and (not is_old or "keep-alive" in options)


def _lines_of(head: str) -> list[str]:
    """The request line and the field lines. Raises BadRequest for a CR, LF or NUL inside a line (RFC 9110 section 5.5),
    and for a malformed request line (RFC 9112 section 3).
    """
    lines = head.split("\r\n")
    ends = len(lines) - 1
    if not _REQUEST_LINE.fullmatch(lines[0]):
        raise BadRequest("the first line of the request is not METHOD TARGET HTTP/1.1")
    if head.count("\r") != ends or head.count("\n") != ends or "\0" in head:
        raise BadRequest("a header field of the request contains a CR, LF or NUL")
    return lines


def _field(line: str) -> tuple[str, str]:
    """The name in lower case, and the value. Raises BadRequest for a line that is not a field (RFC 9112 section 5),
    including the continuation lines of older versions of HTTP (section 5.2).
    """
    name, colon, value = line.partition(":")
    if not colon or (name not in _KNOWN_NAMES and not _NAME.fullmatch(name)):
        raise BadRequest("a header line of the request is not NAME: VALUE")
    return name.lower(), value.strip(" \t")


class StrictHttp(Http):
    """Sanic's HTTP exchange with our own request parser. It reports to the ConnectionTable what it waits for; the table
    limits the time.
    """

    __slots__ = ()

    # Sanic's annotations do not match the values that it stores. `protocol` is a MirrorProtocol.
    protocol: Any
    request_body: Any
    request_bytes: Any

    def init_for_request(self) -> None:
        super().init_for_request()  # type: ignore[no-untyped-call]
        if not self.recv_buffer:
            self.protocol.connection.enter(ConnectionState.IDLE)

    async def http1_request_header(self) -> None:
        """Raises BadRequest, PayloadTooLarge, ExpectationFailed."""
        try:
            await self._read_head()
        except (BadRequest, PayloadTooLarge, ExpectationFailed):
            # The beginning of the next request is unknown: discard the rest and close the connection.
            self.request_body = True
            raise

    async def _read_head(self) -> None:
        buffer, protocol = self.recv_buffer, self.protocol
        end = buffer.find(b"\r\n\r\n")
        if not 0 <= end < self.HEADER_MAX_SIZE:
            end = await self._end_of_head()
        head = bytes(buffer[:end])
        request_line, *lines = _lines_of(head.decode(errors="surrogateescape"))
        method, self.url, version = request_line.split(" ")
        is_old = version == "HTTP/1.0"
        fields: list[tuple[str, str]] = []
        found: dict[str, list[str]] = {}
        for line in lines:
            field = name, value = _field(line)
            fields.append(field)
            if name in _FRAMING:
                found.setdefault(name, []).append(value)
        self.keep_alive = _stays_open(is_old, found["connection"]) if "connection" in found else not is_old
        self.head_only = method.upper() == "HEAD"
        body = body_framing(is_old, found)
        _check_host(is_old, found.get("host", ()))
        # `Upgrade` is ignored, which RFC 9110 section 7.8 allows: the mirror supports no other protocol.
        request = protocol.request_class(
            url_bytes=self.url.encode("ascii"),
            headers=Header(fields),
            head=head,
            version=version[5:],
            method=method,
            transport=protocol.transport,
            app=protocol.app,
        )
        protocol.request_class._current.set(request)  # noqa: SLF001 - as Sanic's own parser does
        self.request_bytes_left = self.request_bytes = body if isinstance(body, int) else 0
        self.request_body = body
        if body is not None and not is_old:
            self._expect(request)
        # One line end stays in front of a chunk: the size of each chunk is between two line ends.
        del buffer[: end + (_LINE_END if body == CHUNKED else 2 * _LINE_END)]
        self.request, request.stream = request, self
        protocol.state["requests_count"] += 1
        protocol.connection.enter(ConnectionState.BUSY)

    async def _end_of_head(self) -> int:
        """The position of the empty line that ends the head. Raises PayloadTooLarge. Raises BadRequest for lines that
        end with LF alone: otherwise we would wait for the end of the head, and the client for a response.
        """
        buffer: bytearray = self.recv_buffer
        position = 0
        while (end := buffer.find(b"\r\n\r\n", position)) < 0:
            if _BARE_LF.search(buffer, max(0, position - 1)):
                raise BadRequest("a line of the request ends with LF instead of CRLF, or contains an LF")
            position = max(0, len(buffer) - 3)
            if position >= self.HEADER_MAX_SIZE:
                break
            await self._wait_for_more()
        if max(end, position) >= self.HEADER_MAX_SIZE:
            raise PayloadTooLarge("Request header exceeds the size limit")
        return end

    def _expect(self, request: Any) -> None:
        """Raises ExpectationFailed (RFC 9110 section 10.1.1)."""
        expected = request.headers.getone("expect", None)
        if expected is not None:
            if expected.lower() != "100-continue":
                raise ExpectationFailed(f"Unknown Expect: {expected[:64]}")
            self.expecting_continue = True

    async def read(self) -> bytes | None:
        """The next piece of the body, None at its end. Raises BadRequest, PayloadTooLarge."""
        if self.request_bytes > self.request_max_size:
            raise PayloadTooLarge("Request body exceeds the size limit")
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        if self.request_body == CHUNKED and not self.request_bytes_left:
            await self._next_chunk()
        if not self.request_bytes_left:
            self.request_body = None
            self.protocol.connection.enter(ConnectionState.BUSY)
            return None
        buffer = self.recv_buffer
        if not buffer:
            await self._wait_for_more()
        data = bytes(buffer[: self.request_bytes_left])
        del buffer[: len(data)]
        self.request_bytes_left -= len(data)
        return data

    async def _next_chunk(self) -> None:
        """Read the size of the next chunk; it is 0 after the last one. Raises BadRequest, PayloadTooLarge."""
        line = await self._body_line()
        matched = _CHUNK_LINE.fullmatch(line)
        if not matched:
            raise BadRequest("Bad chunked encoding: the size of a chunk is not a hexadecimal number")
        size = int(matched[1], 16)
        if size == 0 and await self._body_line():
            # Trailer fields would be request fields that have not been checked.
            raise BadRequest("Bad chunked encoding: trailer fields are not accepted")
        self.request_bytes += size
        if self.request_bytes > self.request_max_size:
            raise PayloadTooLarge("Request body exceeds the size limit")
        self.request_bytes_left = size
        del self.recv_buffer[:_LINE_END]

    async def _body_line(self) -> bytes:
        """The text between the line end at the beginning of the buffer and the next line end. Removes the first line
        end and the text from the buffer. Raises BadRequest.
        """
        buffer = self.recv_buffer
        while len(buffer) < _LINE_END:
            await self._wait_for_more()
        if not buffer.startswith(b"\r\n"):
            raise BadRequest("Bad chunked encoding: a chunk is longer than its size")
        while (end := buffer.find(b"\r\n", _LINE_END)) < 0:
            if len(buffer) > _LONGEST_CHUNK_LINE:
                raise BadRequest("Bad chunked encoding: the line with the size of a chunk is too long")
            await self._wait_for_more()
        line = bytes(buffer[_LINE_END:end])
        del buffer[:end]
        return line

    async def _wait_for_more(self) -> None:
        self.protocol.connection.enter(ConnectionState.WAITING)
        await self._receive_more()

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:  # noqa: FBT001 - Sanic's signature
        if self.request_body:
            # The response is sent before the request is complete. The rest of the body is not awaited.
            self.keep_alive = False
            self.expecting_continue = False
        await super().http1_response_header(data, end_stream)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body while the request is handled; afterwards the rest, which Sanic reads when the response has been
        sent.
        """
        if self.stage is Stage.HANDLER:
            return super().__aiter__()  # type: ignore[no-untyped-call, no-any-return]
        return self._rest()

    async def _rest(self) -> AsyncIterator[bytes]:
        """Discard bytes until the connection ends; the ConnectionTable aborts it after a few seconds. The client learns
        at once that nothing more is sent. If the connection were closed now, the kernel would reset it because of the
        bytes that still arrive, and the client might lose the response (RFC 9112 section 9.6).
        """
        self.keep_alive = False
        self.request_body = None
        self.protocol.close_slowly()
        while True:
            self.recv_buffer.clear()
            await self._receive_more()
            yield b""


class MetricsHttp(StrictHttp):
    """The exchange at METRICS_PORT. It refuses all other paths before anything else sees the request: at this port
    there are no pulls, not even from the response cache.
    """

    __slots__ = ()

    async def http1_request_header(self) -> None:
        """Raises NotFound for other paths, and what StrictHttp raises."""
        await super().http1_request_header()
        if self.request.path not in METRICS_PORT_PATHS:
            raise NotFound(f"this port of the mirror has only {', '.join(METRICS_PORT_PATHS)}")
        self.request.ctx.is_at_metrics_port = True
