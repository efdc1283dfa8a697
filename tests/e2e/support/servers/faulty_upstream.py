"""A registry with faults on demand: `faulty_upstream.py PORT FOLDER`, a program with one log line per request.

Every repository holds every file of the folder, by digest (`sha256:...`, `sha512:...`), and `tags.json` there says
which digest a tag means. There is no authentication. A log line is written after its answer has ended and contains the
number of body bytes that were sent.

`POST /control` takes a list of rules, which replaces the previous list and continues all held answers. For each
request the first rule that matches and is not used up applies:

    path, methods, ranged, times    a regular expression; ["GET"] by default; true or false; how often it applies
    status, retry_after             answer with this error status and this Retry-After
    page                            answer with this web page and status 200
    drop                            close the connection without an answer
    says_length                     the Content-Length in the answer to a HEAD
    delay, silent                   seconds before the headers; no answer at all
    cut_after, hold_after           after this number of body bytes close, or wait for the next rules
    short_by                        send this number of bytes less than Content-Length, then close
    rate                            bytes per second
    flip_at                         the byte at this offset of the content is wrong, also in a range
    wrong_prefix                    this number of bytes at the start of the answer is wrong
    ignore_range, chunked           answer with the complete content and 200; no Content-Length
    shift, adds_to_total            a 206 begins this number of bytes late; its total is larger by this number
    redirect                        redirect to this server, at an address that is signed with the next number

`GET /control` returns the number of held answers, of content answers that are being sent, of connections that were used
at the same time at most, and of answers that may have ended without a log line.
"""

import contextlib
import hashlib
import itertools
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[2]).resolve()
TARGET = re.compile(r"/v2/(?P<name>.+)/(?P<kind>blobs|manifests)/(?P<reference>[^/]+)")
PIECE = 128 * 1024
LONGEST = 60  # seconds that an answer is held
BURST = 0.1  # seconds for which an answer that is late is sent faster
ESTABLISHED = 1  # the first byte of the kernel's TCP_INFO: the client has not closed the connection
Rule = dict[str, Any]


class Faults:
    """The current rules, and the number of answers that wait for the next rules."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._replaced = threading.Event()
        self._answering: dict[Handler, socket.socket] = {}
        self._signatures = itertools.count(1)
        self.holding = 0
        self.ending = 0
        self.most = 0

    def replace(self, rules: list[Rule]) -> None:
        with self._lock:
            self._replaced.set()
            self._replaced = threading.Event()
            self._rules = rules

    def rule_for(self, method: str, path: str, *, ranged: bool) -> Rule:
        with self._lock:
            for rule in self._rules:
                fits = (
                    rule.get("times", 1) > 0
                    and method in rule.get("methods", ["GET"])
                    and re.search(rule.get("path", ""), path)
                    and rule.get("ranged", ranged) == ranged
                )
                if fits:
                    if "times" in rule:
                        rule["times"] -= 1
                    return rule
        return {}

    def hold(self) -> None:
        with self._lock:
            replaced = self._replaced
            self.holding += 1
        replaced.wait(LONGEST)
        with self._lock:
            self.holding -= 1

    def count_ending(self, change: int) -> None:
        with self._lock:
            self.ending += change

    def begins(self, handler: "Handler") -> None:
        with self._lock:
            self._answering[handler] = handler.connection
            self.most = max(self.most, sum(map(is_open, self._answering.values())))

    def ends(self, handler: "Handler") -> None:
        with self._lock:
            self._answering.pop(handler, None)

    def sending(self) -> int:
        with self._lock:
            return sum(handler.sent > 0 and is_open(one) for handler, one in self._answering.items())

    def signature(self) -> int:
        return next(self._signatures)


def is_open(connection: socket.socket) -> bool:
    """Whether the client has not closed the connection. The server may notice that only when it sends again."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED


FAULTS = Faults()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.status, self.sent, self.is_ending = 0, 0, True
        FAULTS.replace(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.give(200, b"{}", {}, {})

    def do_GET(self) -> None:
        self.status, self.sent, self.is_ending = 0, 0, self.path == "/control"
        if self.path == "/control":
            state = {
                "holding": FAULTS.holding, "sending": FAULTS.sending(), "most": FAULTS.most, "ending": FAULTS.ending,
            }  # fmt: skip
            self.give(200, json.dumps(state).encode(), {}, {})
            return
        self.began = time.time()
        FAULTS.begins(self)
        rule = FAULTS.rule_for(self.command, self.path, ranged="Range" in self.headers)
        try:
            self.answer(rule)
        except OSError:  # the client has disconnected
            self.close_connection = True
        finally:
            FAULTS.ends(self)
            self.note()
            if self.is_ending:
                FAULTS.count_ending(-1)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def ends(self) -> None:
        """Must be called before the last bytes of an answer are sent, because the log line is written after them."""
        FAULTS.ends(self)
        if not self.is_ending:
            self.is_ending = True
            FAULTS.count_ending(1)

    def note(self) -> None:
        note = {
            "method": self.command, "path": self.path, "range": self.headers.get("Range"), "status": self.status,
            "sent": self.sent, "agent": self.headers.get("User-Agent", ""),
            "authorization": "Authorization" in self.headers, "began": self.began,
            "traceparent": self.headers.get("traceparent"), "tracestate": self.headers.get("tracestate"),
        }  # fmt: skip
        # One write: print writes the line end separately, so lines of several threads could mix.
        sys.stdout.write(json.dumps(note) + "\n")
        sys.stdout.flush()

    def answer(self, rule: Rule) -> None:
        if rule.get("silent"):
            FAULTS.hold()
            self.close_connection = True
            return
        time.sleep(rule.get("delay", 0))
        if rule.get("drop"):
            self.close_connection = True
        elif "page" in rule:
            self.give(200, rule["page"].encode(), {"Content-Type": "text/html"}, {})
        elif "status" in rule:
            code = {429: "TOOMANYREQUESTS", 404: "BLOB_UNKNOWN", 401: "UNAUTHORIZED", 403: "DENIED"}
            retry = {"Retry-After": rule["retry_after"]} if "retry_after" in rule else {}
            self.give_error(rule["status"], code.get(rule["status"], "UNKNOWN"), retry)
        elif "redirect" in rule:
            self.give(307, b"", {"Location": f"{rule['redirect']}{self.path}?signature={FAULTS.signature()}"}, {})
        elif self.path == "/v2/":
            self.give(200, b"{}", {}, {})
        elif (target := TARGET.fullmatch(self.path.partition("?")[0])) and (file := file_of(target)):
            self.give_content(file, is_manifest=target["kind"] == "manifests", rule=rule)
        else:
            self.give_error(404, "BLOB_UNKNOWN", {})

    def give_content(self, file: Path, *, is_manifest: bool, rule: Rule) -> None:
        content = file.read_bytes()
        kind = json.loads(content)["mediaType"] if is_manifest else "application/octet-stream"
        headers = {
            "Docker-Content-Digest": file.name, "ETag": f'"{file.name}"', "Accept-Ranges": "bytes",
            "Content-Type": kind,
        }  # fmt: skip
        if file.name in self.headers.get("If-None-Match", ""):
            self.give(304, b"", headers, {})
            return
        if "flip_at" in rule:
            at = rule["flip_at"] % len(content)
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        part = None if rule.get("ignore_range") else part_of(self.headers.get("Range", ""), len(content))
        if part is None:
            self.give(200, content, headers, rule)
        elif not part:
            self.give_error(416, "RANGE_INVALID", {"Content-Range": f"bytes */{len(content)}"})
        else:
            part = range(part.start + rule.get("shift", 0), part.stop)
            total = len(content) + rule.get("adds_to_total", 0)
            where = {"Content-Range": f"bytes {part.start}-{part.stop - 1}/{total}"}
            self.give(206, content[part.start : part.stop], headers | where, rule)

    def give_error(self, status: int, code: str, headers: dict[str, str]) -> None:
        body = json.dumps({"errors": [{"code": code, "message": "as the rule says"}]}).encode()
        self.give(status, body, {"Content-Type": "application/json", **headers}, {})

    def give(self, status: int, body: bytes, headers: dict[str, str], rule: Rule) -> None:
        self.status = status
        self.send_response_only(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in headers.items():
            self.send_header(name, value)
        chunked = rule.get("chunked", False)
        if status != 304:  # which has no body, and so no length
            length = rule.get("says_length", len(body)) if self.command == "HEAD" else len(body)
            extent = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(length))
            self.send_header(*extent)
        if self.command == "HEAD" or not body:
            self.ends()
        self.end_headers()
        if self.command != "HEAD":
            self.give_body(body, rule)

    def give_body(self, body: bytes, rule: Rule) -> None:
        chunked, wrong = rule.get("chunked", False), rule.get("wrong_prefix", 0)
        body = bytes(byte ^ 1 for byte in body[:wrong]) + body[wrong:]
        for piece in self.paced(body, rule):
            if self.sent + len(piece) == len(body) and not chunked:
                self.ends()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            self.sent += len(piece)
        if self.sent < len(body):
            self.close_connection = True
        elif chunked:
            self.ends()
            self.wfile.write(b"0\r\n\r\n")

    def paced(self, body: bytes, rule: Rule) -> Iterator[bytes]:
        """The pieces of the body that are to be sent, each when its time has come."""
        end = min(rule.get("cut_after", len(body)), len(body) - rule.get("short_by", 0))
        rate = rule.get("rate")
        size = max(1, min(PIECE, rate // 100)) if rate else PIECE
        due = time.monotonic()
        stops = sorted({*range(0, end, size), rule.get("hold_after", end), end})
        for start, stop in itertools.pairwise(stops):
            if start == rule.get("hold_after"):
                FAULTS.hold()
            if stop > end:
                return
            yield body[start:stop]
            if rate:
                due = max(due + (stop - start) / rate, time.monotonic() - BURST)
                time.sleep(max(0.0, due - time.monotonic()))

    def log_message(self, *_: object) -> None:
        """Does nothing: `note` writes the log line."""


def file_of(target: re.Match[str]) -> Path | None:
    """The file with the content that the target names, or None."""
    digest = target["reference"]
    if ":" not in digest:
        with contextlib.suppress(OSError):
            digest = json.loads((FOLDER / "tags.json").read_text()).get(digest, "")
    algorithm, _, encoded = digest.partition(":")
    known = algorithm in hashlib.algorithms_available and encoded.isalnum()
    return FOLDER / digest if known and (FOLDER / digest).is_file() else None


def part_of(field: str, size: int) -> range | None:
    """The range that a Range field asks for: None for the complete content, an empty range if it is unsatisfiable."""
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", field)
    if not asked or asked[0] == "bytes=-":
        return None
    if not asked[1]:
        return range(max(0, size - int(asked[2])), size)
    return range(int(asked[1]), min(int(asked[2] or size), size - 1) + 1)


if __name__ == "__main__":
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
