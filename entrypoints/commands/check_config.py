"""`check-config`: checks the settings and asks each upstream, and what replicas share, whether they work."""

import asyncio

from application.ports.shared import SharedService, SharedUnavailable
from application.ports.upstream import ForwardedCredentials, PingResponse, TokenRequest
from domain.access import ScopeSet
from domain.challenge import Challenge
from domain.errors import CredentialsRejected, Denied, RegistryError
from domain.trust import UpstreamAuth
from domain.upstreams import Upstream
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container, open_container

_PROBLEM = 1


def run(settings: Settings) -> int:
    """Returns the exit status: 0 if the service can work, 1 if there is a problem with an upstream, the shared store or
    the shared index.
    """
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
                status = _PROBLEM
        for service in container.shared_services():
            if not await examine_service(service):
                status = _PROBLEM
    return status


async def examine_service(service: SharedService) -> bool:
    """Print whether the shared store or the shared index does all that the mirror needs, and return it."""
    place = f"{service.setting}: {service.address}"
    try:
        examined = await service.examine()
    except SharedUnavailable as error:
        reason = str(error).removeprefix(service.address).lstrip(": ")
        print(f"error: {place}: {reason}; check its address, the network, the login and what the login may do")
        return False
    print(f"ok: {place}: {examined.found}")
    for warning in examined.warnings:
        print(f"warning: {place}: {warning}")
    return True


async def report(settings: Settings, container: Container, upstream: Upstream) -> PingResponse:
    """Print what the upstream and its token server say. Raises RegistryError, RealmNotTrusted among them."""
    answer = await container.registry().ping(upstream, ForwardedCredentials())
    auth = UpstreamAuth(answer.challenges)
    row = upstream.trust.row_for(auth)
    print(f"ok: {upstream.url} answers as a registry; trust row {row.number}: {row.meaning}")
    if auth.bearer and not settings.skip_auth_proxy:
        print(await _token_server(container, upstream, auth.bearer))
        if auth.bearer.get("service") == settings.self_auth_service:
            print("warning: the upstream has the same service name; set another SELF_AUTH_SERVICE for this mirror")
    return answer


async def _token_server(container: Container, upstream: Upstream, challenge: Challenge) -> str:
    credentials = upstream.credentials
    try:
        await container.relay().fetch(TokenRequest(upstream, challenge, scopes=ScopeSet(), credentials=credentials))
    except (CredentialsRejected, Denied) as refused:
        if credentials:
            raise
        return f"ok: its token server answers; it gives no token to anonymous callers ({refused.message})"
    return "ok: its token server gives a token" + (
        " for the mirror's own login" if credentials else " to anonymous callers"
    )
