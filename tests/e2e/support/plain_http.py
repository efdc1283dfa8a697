"""A plain HTTP client: it follows no redirects, adds only the Host header and does not retry."""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class UpstreamResponse:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error_codes(self) -> list[str]:
        return [error["code"] for error in self.json()["errors"]]


def connect(url: str, tls: ssl.SSLContext | None = None, timeout: float = 30) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=tls)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)


def send(
    connection: http.client.HTTPConnection, method: str, target: str,
    headers: Mapping[str, str] | None = None, body: bytes | None = None,
) -> UpstreamResponse:  # fmt: skip
    connection.request(method, target, body=body, headers=dict(headers or {}))
    response = connection.getresponse()
    return UpstreamResponse(response.status, response.headers, response.read())


def fetch(
    method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> UpstreamResponse:  # fmt: skip
    parts = urlsplit(url)
    connection = connect(url, tls)
    try:
        return send(connection, method, parts.path + (f"?{parts.query}" if parts.query else ""), headers, body)
    finally:
        connection.close()


def answers(url: str, status: int = 200, tls: ssl.SSLContext | None = None) -> bool:
    """Whether the URL answers with this status now. Returns False for a refused connection."""
    try:
        return fetch("GET", url, tls=tls).status == status
    except (OSError, http.client.HTTPException):
        return False
