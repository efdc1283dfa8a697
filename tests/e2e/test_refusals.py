"""With ACCOUNTS, a caller without a valid account gets no byte of content from any worker.

The tests send every kind of invalid credential to every path that serves content, by GET, HEAD and Range. The
upstream serves referrers to everyone. A valid account gets answers to the same requests, so the tests can fail.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.support import forged_tokens
from tests.e2e.support.plain_http import UpstreamResponse, send
from tests.e2e.support.service import SECRET, Proxy, serving
from tests.e2e.support.upstreams import PRIVATE, PUBLIC, Content, LoggedUpstream, TokenUpstream, account_entry, basic

pytestmark = pytest.mark.real("docker-registry")

PULL = f"repository:{PRIVATE}:pull"
CATALOG = "registry:catalog:*"
BOTH = f"{account_entry('alice')},{account_entry('bob')}"
RANGE = {"Range": "bytes=0-9"}
MANIFESTS = {"Accept": "application/vnd.oci.image.manifest.v1+json, */*"}


@dataclass(frozen=True)
class Endpoint:
    """A path that serves content, and the scope that its token needs. The search endpoint takes no tokens."""

    path: str
    scope: str = PULL
    headable: bool = False
    token: bool = True


def endpoints(content: Content) -> list[Endpoint]:
    image = content.images[PRIVATE]
    return [
        Endpoint(f"/v2/{PRIVATE}/manifests/1", headable=True),
        Endpoint(f"/v2/{PRIVATE}/manifests/{image.manifest.digest}", headable=True),
        Endpoint(f"/v2/{PRIVATE}/blobs/{image.config.digest}", headable=True),
        Endpoint(f"/v2/{PRIVATE}/blobs/{image.layers[0].digest}", headable=True),
        Endpoint(f"/v2/{PRIVATE}/tags/list"),
        Endpoint("/v2/_catalog", CATALOG),
        Endpoint(f"/v2/{PRIVATE}/referrers/{image.manifest.digest}"),
        Endpoint("/v1/search?q=e2e", CATALOG, token=False),
    ]


@dataclass(frozen=True)
class Service:
    """The service in one trust row, with the tokens that an attacker could have."""

    proxy: Proxy
    upstream: LoggedUpstream
    bearer: bool
    tokens: dict[str, str]  # by scope, alice's
    removed: dict[str, str]  # by scope, of bob, whose account was removed by the restart
    foreign: dict[str, str]  # by scope, alice's at the upstream's own token server

    def valid(self, endpoint: Endpoint) -> str:
        return f"Bearer {self.tokens[endpoint.scope]}" if self.bearer and endpoint.token else basic("alice")

    def wrong(self, endpoint: Endpoint) -> dict[str, str | None]:
        scope = endpoint.scope
        found: dict[str, str | None] = {
            "no credentials": None,
            "no known scheme": "Digest username=alice",
            "an unknown account": basic("mallory", "mallory-pass"),
            "a wrong password": basic("alice", "bob-pass"),
            "an account since removed": basic("bob"),
            "no token at all": "Bearer ",
            "no JWT": "Bearer abc",
            "the upstream's own token": f"Bearer {self.foreign[scope]}",
        }
        return found | self._wrong_tokens(scope) if self.bearer else found

    def _wrong_tokens(self, scope: str) -> dict[str, str | None]:
        ours = self.tokens[scope]
        other = self.tokens[PULL if scope == CATALOG else CATALOG]
        elsewhere = self.tokens[f"repository:{PUBLIC}:pull"]
        half, tilde, upstreams = ours.partition("~")
        found = {
            "an expired token": forged_tokens.expired(ours),
            "another key": forged_tokens.resigned(ours, secret="x" * len(SECRET)),
            "no signature": forged_tokens.unsigned(ours),
            "altered claims": forged_tokens.altered(elsewhere, ours),
            "a stranger's signature": forged_tokens.strangers(ours),
            "another issuer": forged_tokens.resigned(ours, iss="another-proxy"),
            "another scope": other,
            "another repository": elsewhere,
            "an account since removed, its token": self.removed[scope],
            "a countersignature added": f"{half}~{self.foreign[scope]}x",
        }
        if tilde:
            found |= {
                "the signed half alone": half,
                "the signed half and a tilde": f"{half}~",
                "the upstream's half alone": upstreams,
                "the upstream's half and a tilde": f"~{upstreams}",
                "the halves of two tokens": f"{half}~{other.partition('~')[2]}",
                "the halves exchanged": f"{upstreams}~{half}",
            }
        return {name: f"Bearer {token}" for name, token in found.items()}


@contextmanager
def service(
    folder: Path, upstream: LoggedUpstream, tokens: TokenUpstream, *, bearer: bool, **settings: str
) -> Iterator[Service]:
    settings = {**upstream.settings, "SERVER_SECRET": SECRET, "TRUSTED_PROXIES": "127.0.0.1", **settings}
    scopes = [PULL, CATALOG, f"repository:{PUBLIC}:pull"]
    removed = {}
    if bearer:
        with serving(folder, **settings, ACCOUNTS=BOTH) as before:
            removed = {scope: before.token(scope, "bob") for scope in scopes}
    with serving(folder, **settings, ACCOUNTS=account_entry("alice")) as proxy:
        ours = {scope: proxy.token(scope, "alice") for scope in scopes} if bearer else {}
        foreign = {scope: tokens.token(scope, "alice") for scope in scopes}
        yield Service(proxy, upstream, bearer, ours, removed, foreign)


UPSTREAMS = {"row 6": "open", "row 7": "token", "row 8": "htpasswd"}
WITH_TOKENS = pytest.mark.parametrize("locked", ["row 6", "row 7"], indirect=True)


@pytest.fixture(scope="module", params=list(UPSTREAMS))
def locked(request: pytest.FixtureRequest, workplace: Path, token_registry: TokenUpstream) -> Iterator[Service]:
    kind = UPSTREAMS[request.param]
    upstream = request.getfixturevalue(f"spied_{kind}")
    with service(workplace, upstream, token_registry, bearer=kind != "htpasswd") as found:
        yield found


def test_each_worker_answers_a_valid_account(locked: Service, content: Content) -> None:
    with locked.proxy.connection_to_each_worker() as connections:
        for connection in connections:
            for endpoint in endpoints(content):
                headers = {**MANIFESTS, "Authorization": locked.valid(endpoint)}
                whole = send(connection, "GET", endpoint.path, headers)
                assert (whole.status, bool(whole.body)) == (200, True), (endpoint.path, whole.body)
                if endpoint.headable:
                    assert send(connection, "HEAD", endpoint.path, headers).status == 200
                ranged = send(connection, "GET", endpoint.path, {**headers, **RANGE})
                assert ranged.status == (206 if "/blobs/" in endpoint.path else 200), endpoint.path


def test_each_worker_refuses_every_invalid_credential(locked: Service, content: Content) -> None:
    since = locked.upstream.mark()
    wrongs = 0
    with locked.proxy.connection_to_each_worker() as connections:
        for endpoint in endpoints(content):
            for name, authorization in locked.wrong(endpoint).items():
                headers = {**MANIFESTS, **({"Authorization": authorization} if authorization else {})}
                for connection in connections:
                    for method, more in (("GET", {}), ("HEAD", {}), ("GET", RANGE)):
                        # Each request has its own client address, because failed logins of one address are delayed.
                        address = {"X-Forwarded-For": f"198.18.{wrongs // 256}.{wrongs % 256}"}
                        answer = send(connection, method, endpoint.path, {**headers, **more, **address})
                        assert_refused(answer, method, endpoint, f"{method} {endpoint.path} with {name}")
                        wrongs += 1
    assert wrongs >= 8 * 8 * 2 * 3
    # No request reached the upstream, which would answer referrers to everyone.
    assert locked.upstream.content_requests(since) == []


def assert_refused(answer: UpstreamResponse, method: str, endpoint: Endpoint, what: str) -> None:
    if method == "HEAD" and not endpoint.headable and answer.status == 405:
        assert answer.body == b""
        return
    assert answer.status == 401, (what, answer.status, answer.body[:200])
    assert answer.headers["WWW-Authenticate"], what
    for header in ("Docker-Content-Digest", "ETag", "Content-Range", "Link"):
        assert header not in answer.headers, what
    if method == "HEAD":
        assert answer.body == b"", what
    else:
        assert set(answer.json()) == {"errors"}, what
        assert answer.error_codes() in (["UNAUTHORIZED"], ["DENIED"]), what


@WITH_TOKENS
def test_a_token_for_another_repository_is_answered_with_insufficient_scope(locked: Service) -> None:
    elsewhere = locked.tokens[f"repository:{PUBLIC}:pull"]
    answer = locked.proxy.get(f"/v2/{PRIVATE}/tags/list", f"Bearer {elsewhere}")
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert f'scope="{PULL}"' in answer.headers["WWW-Authenticate"]


@WITH_TOKENS
def test_a_token_signed_again_with_the_servers_secret_is_accepted(locked: Service) -> None:
    """Shows that the forged tokens above are refused because of their claims, and not because of how they are made."""
    copy = forged_tokens.resigned(locked.tokens[PULL])
    assert locked.proxy.get(f"/v2/{PRIVATE}/tags/list", f"Bearer {copy}").status == 200


@WITH_TOKENS
def test_the_token_endpoint_answers_401_without_a_valid_account(locked: Service) -> None:
    for authorization in (None, basic("bob"), basic("alice", "wrong"), basic("mallory", "x"), "Bearer abc"):
        answer = locked.proxy.ask_token(PULL, authorization)
        assert answer.status == 401, authorization
        assert set(answer.json()) == {"errors"}, authorization


@pytest.mark.parametrize(
    "path",
    [
        f"/v2/{PUBLIC}/../../{PRIVATE}/tags/list",
        f"/v2/{PUBLIC}/%2e%2e/%2e%2e/{PRIVATE}/tags/list",
        f"/v2/{PUBLIC}%2F..%2F..%2F{PRIVATE}/tags/list",
        f"/v2/{PUBLIC}/tags/list/../../../../{PRIVATE}/tags/list",
        f"/v2//{PRIVATE}/tags/list",
        f"//v2/{PRIVATE}/tags/list",
        f"/v2/{PRIVATE}/tags/list/",
        f"/v2/{PRIVATE}/tags/list%00",
        f"/v2/{PRIVATE}/tags/list;x",
        f"/v2/{PRIVATE.upper()}/tags/list",
        f"/v2/{PRIVATE}/tags%2Flist",
    ],
)
def test_a_malformed_path_is_refused(locked: Service, path: str) -> None:
    since = locked.upstream.mark()
    for authorization in (None, f"Bearer {locked.tokens.get(f'repository:{PUBLIC}:pull', 'none')}"):
        answer = locked.proxy.get(path, authorization)
        assert 400 <= answer.status < 500, answer.status
        assert b'"tags"' not in answer.body
    assert locked.upstream.content_requests(since) == []


@pytest.mark.parametrize("identity", ["anonymous", "service"])
def test_row_6_with_the_mirrors_own_upstream_login_refuses_every_invalid_credential(
    workplace: Path,
    spied_token: LoggedUpstream,
    token_registry: TokenUpstream,
    content: Content,
    identity: str,
) -> None:
    settings = {"UPSTREAM_IDENTITY": identity}
    if identity == "service":
        settings |= {"UPSTREAM_USERNAME": "alice", "UPSTREAM_PASSWORD": "alice-pass"}
    with service(workplace, spied_token, token_registry, bearer=True, **settings) as closed:
        if identity == "service":
            test_each_worker_answers_a_valid_account(closed, content)
        test_each_worker_refuses_every_invalid_credential(closed, content)
