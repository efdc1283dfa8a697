"""A small registry over HTTP that follows the specification, with the content and the users of a FakeUpstream."""

import json
from urllib.parse import parse_qs, urlsplit

from domain.authorization import Basic, Bearer, parse_authorization
from domain.byte_ranges import parse_ranges
from domain.challenge import Challenge
from domain.digest import Digest
from domain.errors import RangeUnsatisfiable
from tests.adapters.upstream.wire import Headers, Heard, Say, reply
from tests.fakes.upstream import FakeUpstream

_JSON = ("Content-Type", "application/json")
_TOKEN = "token-of-"


class HonestRegistry:
    """The script of a WireServer. `url` is the address of the server; `/token` is its token server."""

    def __init__(self, content: FakeUpstream) -> None:
        self.url = ""
        self._content = content

    def __call__(self, heard: Heard) -> Say:
        path = urlsplit(heard.target).path
        if path == "/token":
            return self._token(heard)
        if (refusal := self._refusal(heard, path)) is not None:
            return refusal
        if path == "/v2/":
            return reply(200, ("Docker-Distribution-Api-Version", "registry/2.0"), _JSON, body=b"{}")
        return self._resource(heard, path)

    # --- authorization ---

    def _refusal(self, heard: Heard, path: str) -> Say | None:
        caller = self._caller(heard)
        name = path.removeprefix("/v2/").rsplit("/", 2)[0]
        is_open = path in {"/v2/", "/v2/_catalog"} or name in self._content.public
        if self._content.scheme == "none" or caller or (caller == "" and is_open):
            return None
        challenge = Challenge.of("Basic", realm="honest registry")
        if self._content.scheme == "bearer":
            scope = None if path == "/v2/" else f"repository:{name}:pull"
            challenge = Challenge.of("Bearer", realm=f"{self.url}/token", service="honest", scope=scope)
        return _error(401, "UNAUTHORIZED", ("WWW-Authenticate", str(challenge)))

    def _caller(self, heard: Heard) -> str | None:
        """The user name, "" for an anonymous caller, None for invalid credentials."""
        match parse_authorization(heard.header("Authorization")):
            case Bearer(token) if self._content.scheme == "bearer" and token.startswith(_TOKEN):
                return token.removeprefix(_TOKEN)
            case Basic(credentials) if self._content.users.get(credentials.username) == credentials.password:
                return credentials.username if self._content.scheme == "basic" else None
        return None

    def _token(self, heard: Heard) -> Say:
        asked = parse_qs(heard.body.decode() or urlsplit(heard.target).query)
        name = ""
        match parse_authorization(heard.header("Authorization")):
            case Basic(credentials) if self._content.users.get(credentials.username) != credentials.password:
                return _error(401, "UNAUTHORIZED")
            case Basic(credentials):
                name = credentials.username
        if "refresh_token" in asked and asked["refresh_token"] != [self._content.refresh_token]:
            return _error(401, "UNAUTHORIZED")
        document: dict[str, object] = {"token": f"{_TOKEN}{name}", "expires_in": 300}
        if asked.get("offline_token") == ["true"]:
            document["refresh_token"] = self._content.refresh_token
        return reply(200, _JSON, body=json.dumps(document).encode())

    # --- content ---

    def stored(self, heard: Heard) -> Say:
        """The response of the storage to which the registry redirects."""
        if f"{self._content.storage}{heard.target}" not in self._content.signed:
            return reply(403, ("Content-Type", "application/xml"), body=b"<Error><Code>AccessDenied</Code></Error>")
        digest = urlsplit(heard.target).path.removeprefix("/")
        return _blob(heard, next(content for (_, one), content in self._content.blobs.items() if one == digest))

    def _resource(self, heard: Heard, path: str) -> Say:
        if path == "/v2/_catalog":
            return _listed({"repositories": sorted(self._content.tags)})
        name, kind, last = path.removeprefix("/v2/").rsplit("/", 2)
        match kind:
            case "manifests" if found := self._content.manifests.get((name, last)):
                return _whole(heard, found[1], ("Content-Type", found[0]))
            case "blobs" if (content := self._content.blobs.get((name, last))) is not None:
                is_stored = self._content.storage is not None
                return reply(307, ("Location", self._content.sign(last))) if is_stored else _blob(heard, content)
            case "tags" if name in self._content.tags:
                return _listed({"name": name, "tags": self._content.tags[name]})
            case "referrers":
                return _listed({"schemaVersion": 2, "manifests": []})
        codes = {"manifests": "MANIFEST_UNKNOWN", "blobs": "BLOB_UNKNOWN"}
        return _error(404, codes.get(kind, "NAME_UNKNOWN"))


def _whole(heard: Heard, content: bytes, *headers: tuple[str, str]) -> Say:
    described: Headers = (("Docker-Content-Digest", str(Digest.of(content))), ("Content-Length", str(len(content))))
    return reply(200, *headers, _etag(content), *described, body=b"" if heard.method == "HEAD" else content)


def _etag(content: bytes) -> tuple[str, str]:
    return "ETag", f'"{Digest.of(content)}"'


def _blob(heard: Heard, content: bytes) -> Say:
    headers = ("Content-Type", "application/octet-stream"), ("Accept-Ranges", "bytes")
    return _part(heard, content) or _whole(heard, content, *headers)


def _part(heard: Heard, content: bytes) -> Say | None:
    asked = next(iter(parse_ranges(heard.header("Range"))), None)
    if asked is None:
        return None
    try:
        span = asked.of(len(content))
    except RangeUnsatisfiable:
        return _error(416, "RANGE_INVALID", ("Content-Range", f"bytes */{len(content)}"))
    content_range = ("Content-Range", f"bytes {span.start}-{span.stop - 1}/{len(content)}")
    headers = ("Content-Type", "application/octet-stream"), content_range, _etag(content)
    return reply(206, *headers, body=content[span.start : span.stop])


def _listed(document: dict[str, object]) -> Say:
    return reply(200, _JSON, body=json.dumps(document).encode())


def _error(status: int, code: str, *headers: tuple[str, str]) -> Say:
    body = json.dumps({"errors": [{"code": code, "message": "as the specification says"}]}).encode()
    return reply(status, _JSON, *headers, body=body)
