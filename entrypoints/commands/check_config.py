"""check-config: would these settings work? Prints what it finds, in plain words."""

import asyncio

from application.ports.upstream import ForwardedCredentials, PingResponse, TokenRequest
from domain.access import ScopeSet
from domain.challenge import Challenge
from domain.errors import CredentialsRejected, Denied, RegistryError
from domain.trust import UpstreamAuth
from domain.upstreams import Upstream
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container, open_container

_TROUBLE = 1


def check_config(settings: Settings) -> int:
    """Returns the exit status: 0 where all is well, 1 where an upstream would not let the service work."""
    return asyncio.run(_check(settings))


async def _check(settings: Settings) -> int:
    for warning in settings.warnings:
        print(f"warning: {warning}")
    async with open_container(settings) as container:
        status = 0
        for upstream in container.upstreams().upstreams:
            try:
                await report(settings, container, upstream)
            except RegistryError as error:
                print(f"error: {upstream.url}: {error.message}")
                status = _TROUBLE
    return status


async def report(settings: Settings, container: Container, upstream: Upstream) -> PingResponse:
    """Print what the upstream and its token server say. Raises RegistryError, RealmNotTrusted among them."""
    answer = await container.registry().ping(upstream, ForwardedCredentials())
    auth = UpstreamAuth(answer.challenges)
    row = upstream.trust.row_for(auth)
    print(f"ok: {upstream.url} answers as a registry; trust row {row.number}: {row.meaning}")
    if auth.bearer and not settings.skip_auth_proxy:
        print(await _token_server(container, upstream, auth.bearer))
        if auth.bearer.get("service") == settings.self_auth_service:
            print("warning: the upstream has the same service name; give this mirror another SELF_AUTH_SERVICE")
    return answer


async def _token_server(container: Container, upstream: Upstream, challenge: Challenge) -> str:
    credentials = upstream.credentials
    try:
        await container.relay().fetch(TokenRequest(upstream, challenge, scopes=ScopeSet(), credentials=credentials))
    except (CredentialsRejected, Denied) as refused:
        if credentials:
            raise
        return f"ok: its token server answers; nobody gets a token there without a login ({refused.message})"
    return "ok: its token server gives a token" + (" for the mirror's own login" if credentials else " to anybody")
