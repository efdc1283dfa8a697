"""Sessions: which certificates they trust, and what they never send."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.upstream.connections import ProxyRules, Sessions, SessionSettings
from adapters.upstream.system_authorities import read_system_authorities
from application.ports.upstream import ForwardedCredentials, SessionCredentials, UpstreamRequest
from domain.errors import UpstreamChallenged, UpstreamFault, UpstreamUnreachable
from tests.adapters.upstream.authority import Authority
from tests.adapters.upstream.line import CONTENT, in_loop, line, parts, resources, upstream_at
from tests.adapters.upstream.wire import Heard, Say, WireServer, reply


async def fetch(url: str, ca_file: Path | None, read_timeout: float = 5) -> bytes:
    blob = UpstreamRequest(resources(upstream_at(url))["blob"], ForwardedCredentials())
    async with parts(ca_file=ca_file, read_timeout=read_timeout) as adapters, adapters.registry.open(blob) as answer:
        return await answer.read(1000)


@in_loop
async def test_a_private_authority_of_the_settings_is_trusted(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with WireServer(lambda _: reply(body=CONTENT), authority.context()) as server:
        assert await fetch(server.url, authority.certificate) == CONTENT


@in_loop
async def test_an_untrusted_authority_names_the_setting(tmp_path: Path) -> None:
    async with WireServer(lambda _: reply(body=CONTENT), Authority(tmp_path).context()) as server:
        with pytest.raises(UpstreamUnreachable, match="UPSTREAM_CA"):
            await fetch(server.url, None)
        assert server.heard == []


@in_loop
async def test_another_private_authority_is_not_trusted(tmp_path: Path) -> None:
    another = Authority(tmp_path, "another authority")
    async with WireServer(lambda _: reply(body=CONTENT), Authority(tmp_path).context()) as server:
        with pytest.raises(UpstreamUnreachable, match="UPSTREAM_CA"):
            await fetch(server.url, another.certificate)


@pytest.mark.parametrize(("address", "until"), [("127.0.0.1", -1), ("127.0.0.2", 1)])
@in_loop
async def test_expired_or_misnamed_certificate_is_not_trusted(tmp_path: Path, address: str, until: int) -> None:
    authority = Authority(tmp_path)
    async with WireServer(lambda _: reply(body=CONTENT), authority.context(address, until)) as server:
        with pytest.raises(UpstreamUnreachable, match="UPSTREAM_CA"):
            await fetch(server.url, authority.certificate)


@in_loop
async def test_a_plain_http_server_under_https_is_an_error() -> None:
    async with WireServer(lambda _: reply(body=CONTENT)) as server:
        with pytest.raises(UpstreamFault):
            await fetch(server.url.replace("http:", "https:"), None, read_timeout=0.3)


@in_loop
async def test_a_file_without_certificates_is_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        Sessions(SessionSettings(ca_file=empty), ProxyRules())


@in_loop
async def test_the_authorities_of_the_system_are_those_of_the_last_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    async with WireServer(lambda _: reply(body=CONTENT), authority.context()) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        read_system_authorities()
        try:
            assert await fetch(server.url, None) == CONTENT
            monkeypatch.delenv("SSL_CERT_FILE")
            assert await fetch(server.url, None) == CONTENT
        finally:
            monkeypatch.undo()
            read_system_authorities()
        with pytest.raises(UpstreamUnreachable, match="UPSTREAM_CA"):
            await fetch(server.url, None)


@pytest.mark.parametrize("credentials", [ForwardedCredentials(), SessionCredentials(None)])
@in_loop
async def test_netrc_of_the_user_is_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, credentials: ForwardedCredentials | SessionCredentials
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\ndefault login anybody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))

    def script(heard: Heard) -> Say:
        if heard.target.startswith("/token"):
            return reply(body=b'{"token":"abc"}')
        if heard.header("Authorization"):
            return reply(body=CONTENT)
        return reply(401, ("WWW-Authenticate", 'Bearer realm="/token"'))

    async with line(script) as link:
        if credentials == ForwardedCredentials():
            with pytest.raises(UpstreamChallenged):
                await link.fetch(credentials=credentials)
        else:
            await link.fetch(credentials=credentials)
        sent = {heard.header("Authorization") for heard in link.server.heard}
        assert sent <= {None, "Bearer abc"}


@in_loop
async def test_a_user_in_the_address_is_not_sent() -> None:
    async with line() as link:
        location = link.server.url.replace("http://", "http://user:secret@")
        link.server.script = lambda heard: (
            reply(307, ("Location", f"{location}/stored")) if heard.target.startswith("/v2/") else reply(body=CONTENT)
        )
        await link.fetch()
        assert [heard.header("Host") for heard in link.server.heard] == [f"127.0.0.1:{link.server.port}"] * 2


def demanding(authority: Authority) -> ssl.SSLContext:
    """A server that requires a client certificate."""
    context = authority.context()
    context.load_verify_locations(cafile=authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def fetch_as(url: str, authority: Authority, certificate: tuple[Path, Path] | None) -> bytes:
    blob = UpstreamRequest(resources(upstream_at(url))["blob"], ForwardedCredentials())
    async with (
        parts(ca_file=authority.certificate, certificate=certificate) as adapters,
        adapters.registry.open(blob) as answer,
    ):
        return await answer.read(1000)


@in_loop
async def test_a_server_that_asks_gets_the_client_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with WireServer(lambda _: reply(body=CONTENT), demanding(authority)) as server:
        assert await fetch_as(server.url, authority, authority.pair("client")) == CONTENT


@pytest.mark.parametrize("has_one", [False, True])
@in_loop
async def test_without_the_right_client_certificate_the_request_fails(tmp_path: Path, *, has_one: bool) -> None:
    authority = Authority(tmp_path)
    stranger = Authority(tmp_path, "another authority").pair("stranger")
    async with WireServer(lambda _: reply(body=CONTENT), demanding(authority)) as server:
        with pytest.raises(UpstreamFault):
            await fetch_as(server.url, authority, stranger if has_one else None)
        assert server.heard == []


_CERTIFICATES = """
import asyncio, os
from adapters.upstream.connections import ProxyRules, Sessions, SessionSettings
import aiohttp.connector

async def main():
    sessions = Sessions(SessionSettings(), ProxyRules())
    own = {connector._ssl for session in sessions._direct.values() for connector in [session.connector]}
    print([len(context.get_ca_certs()) for context in own], os.environ.get("SSL_CERT_FILE"))
    print(len(aiohttp.connector._SSL_CONTEXT_VERIFIED.get_ca_certs()))
    await sessions.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("is_named", [True, False])
def test_only_sessions_load_the_certificates_of_the_system(tmp_path: Path, is_named: bool) -> None:  # noqa: FBT001
    named = {"SSL_CERT_FILE": str(Authority(tmp_path).certificate)} if is_named else {}
    others = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"}
    done = subprocess.run(
        [sys.executable, "-c", _CERTIFICATES],
        env={**others, **named}, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    own, of_aiohttp = done.stdout.splitlines()
    loaded, _, file = own.partition(" ")
    assert file == named.get("SSL_CERT_FILE", "None")
    assert not is_named or loaded == "[1]"
    assert of_aiohttp == "0"
