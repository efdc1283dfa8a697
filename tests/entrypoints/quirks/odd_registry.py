"""A registry on a real socket that is correct except for one quirk, and the service as its mirror."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from domain.digest import Digest
from tests.adapters.upstream.wire import Heard, Say, WireServer, reply
from tests.entrypoints.service import Service, WireAnswer

NAME = "team/app"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = b'{"schemaVersion":2,"layers":[],"config":{}}'
BLOB = b"the bytes of a layer"
TAGS = b'{"name":"team/app","tags":["v1"]}'
TAG_PATH = f"/v2/{NAME}/manifests/v1"
BLOB_PATH = f"/v2/{NAME}/blobs/{Digest.of(BLOB)}"
TAGS_PATH = f"/v2/{NAME}/tags/list"
VERSION = ("Docker-Distribution-Api-Version", "registry/2.0")
JSON = ("Content-Type", "application/json")
PULL = f"repository:{NAME}:pull"

Script = Callable[[Heard], Say | None]


def error(status: int, code: str, *headers: tuple[str, str]) -> Say:
    """An error in the format of the specification."""
    body = json.dumps({"errors": [{"code": code, "message": "as the registry says"}]}).encode()
    return reply(status, JSON, *headers, body=body)


@dataclass
class OddRegistry:
    """A registry with one manifest, one blob and one tag. `odd` answers first; if it returns None, the registry does.

    `challenge` is the WWW-Authenticate line; without it there is no authentication. Its token server gives t1, t2 ...
    and the registry accepts the last of them.
    """

    server: WireServer
    odd: Script = lambda _: None
    challenge: str | None = None
    given: int = 0
    names: dict[str, bytes] = field(default_factory=lambda: {TAG_PATH: MANIFEST, BLOB_PATH: BLOB, TAGS_PATH: TAGS})

    @property
    def url(self) -> str:
        return self.server.url

    def bearer(self, scope: str = "") -> str:
        """The line of a Bearer challenge."""
        named = f',scope="{scope}"' if scope else ""
        return f'Bearer realm="{self.url}/token",service="odd"{named}'

    def heard(self, part: str, method: str | None = None) -> list[Heard]:
        """The requests whose target contains `part`, in their order."""
        return [one for one in self.server.heard if part in one.target and method in {None, one.method}]

    def shown(self, part: str) -> list[str | None]:
        """The Authorization header of each request whose target contains `part`."""
        return [one.header("Authorization") for one in self.heard(part)]

    def answer(self, heard: Heard) -> Say:
        said = self.odd(heard) or self._usual(heard)
        # The answer to a HEAD is that to a GET without its body.
        return said if heard.method != "HEAD" else Say(said.data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", said.then)

    def _usual(self, heard: Heard) -> Say:
        path = heard.target.partition("?")[0]
        if path == "/token":
            return self.token()
        if self.challenge and not self._is_known(heard):
            return error(401, "UNAUTHORIZED", ("WWW-Authenticate", self.challenge))
        return self.content(heard)

    def _is_known(self, heard: Heard) -> bool:
        return heard.header("Authorization") == f"Bearer t{self.given}"

    def token(self, **more: object) -> Say:
        self.given += 1
        return reply(200, JSON, body=json.dumps({"token": f"t{self.given}", "expires_in": 300, **more}).encode())

    def content(self, heard: Heard) -> Say:
        """The answer for the path, without a check of authorization."""
        path = heard.target.partition("?")[0]
        if path == "/v2/":
            return reply(200, JSON, VERSION, body=b"{}")
        content = MANIFEST if path.startswith(f"/v2/{NAME}/manifests/") else self.names.get(path)
        if content is None:
            return error(404, "NAME_UNKNOWN")
        if content is not MANIFEST:
            return part_of(content, heard)
        return reply(200, ("Content-Type", IMAGE), ("Docker-Content-Digest", str(Digest.of(MANIFEST))), body=MANIFEST)


def part_of(content: bytes, heard: Heard) -> Say:
    """The blob, or its first byte if the request asks for this range."""
    kind = ("Content-Type", "application/octet-stream")
    if heard.header("Range") != "bytes=0-0":
        return reply(200, kind, body=content)
    return reply(206, kind, ("Content-Range", f"bytes 0-0/{len(content)}"), body=content[:1])


def jwt(*access: dict[str, object]) -> str:
    """A token in the format of distribution's token servers; its signature is not checked."""
    parts = ({"alg": "RS256", "typ": "JWT"}, {"iss": "auth.test", "access": list(access)})
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*coded, "c2lnbmF0dXJl"])


@dataclass
class Mirror:
    """The service and its upstream registry."""

    service: Service
    registry: OddRegistry

    async def ask(self, path: str, authorization: str | None = None, *, method: str = "GET") -> WireAnswer:
        line = f"\nAuthorization: {authorization}" if authorization else ""
        return await self.service.ask(f"{method} {path} HTTP/1.1\nHost: mirror.test{line}")

    async def log_in(self, query: str = f"service=odd&scope={PULL}") -> str:
        """The Authorization header with a token from the service's token endpoint."""
        answer = await self.ask(f"/v2/auth?{query}")
        assert answer.status == 200, answer.body
        return f"Bearer {json.loads(answer.body)['token']}"


def code_of(answer: WireAnswer) -> str:
    """The error code of an OCI error body; it contains nothing else."""
    assert answer.get("content-type") == "application/json"
    (error,) = json.loads(answer.body)["errors"]
    return str(error["code"])
