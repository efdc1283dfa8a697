"""`doctor`: looks for problems, and says what to do about each of them."""

import asyncio
import socket
from collections.abc import Collection
from dataclasses import replace
from urllib.parse import urlsplit

from rich.filesize import decimal
from yarl import URL

from application.manifests.manifest_query import ManifestQuery
from application.ports.content import StorageFailed
from domain.errors import NameUnknown, RegistryError, Unauthorized
from domain.manifests import MANIFEST_MEDIA_TYPES
from domain.names import Reference, RepositoryName
from domain.upstreams import Upstream
from entrypoints.commands.check_config import examine_service, report
from entrypoints.commands.command_input import parse_image_or_latest
from entrypoints.settings import Settings, SettingsError
from entrypoints.wiring.container import Container, open_container
from entrypoints.wiring.storage import act_as_owner, prepare_storage, storage_folder

_PROBLEM = 1
_CLOCK_SECONDS = 60
"""A larger difference between clocks is an error: tokens are valid for minutes, and not before they are issued."""

Image = tuple[RepositoryName, Reference]


def run(settings: Settings, text: str | None) -> int:
    """Returns the exit status: 0, or 1 if there is a problem."""
    return asyncio.run(_Doctor(settings).examine(parse_image_or_latest(text) if text else None))


class _Doctor:
    """Makes one check after another. A problem does not stop the later checks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._status = 0

    async def examine(self, image: Image | None) -> int:
        for warning in self._settings.warnings:
            print(f"warning: {warning}")
        has_cache = self._check_folder()
        settings = self._settings if has_cache else replace(self._settings, cache_dir=None)
        async with open_container(settings) as container:
            if has_cache:
                await self._check_disk_space(container)
            for service in container.shared_services():
                if not await examine_service(service):
                    self._status = _PROBLEM
            if has_cache:
                await self._check_pins(container)  # after the shared index, which has them, was examined
            reached = [one for one in container.upstreams().upstreams if await self._check_upstream(container, one)]
            if image:
                await self._check_image(container, image, reached)
        return self._status

    async def _check_upstream(self, container: Container, upstream: Upstream) -> bool:
        """Check DNS, TLS, ping, token server and clock of the upstream. Returns whether it can be used."""
        for endpoint in upstream.endpoints:
            await self._check_address(container, endpoint)
        try:
            answer = await report(self._settings, container, upstream)
        except RegistryError as error:
            self._report_problem(f"{upstream.url}: {error.message}")
            return False
        self._check_clock(container.clock().now(), answer.server_time)
        return True

    def _report_problem(self, text: str) -> None:
        self._status = _PROBLEM
        print(f"error: {text}")

    def _check_folder(self) -> bool:
        """Check the cache folder. Returns whether there is a usable cache."""
        if self._settings.cache_dir is None:
            print("ok: the cache is off")
            return False
        try:
            act_as_owner(self._settings, may_stay_root=True)
            prepare_storage(self._settings)
        except SettingsError as error:
            self._report_problem(str(error))
            return False
        return True

    async def _check_disk_space(self, container: Container) -> None:
        found = await container.manage_cache().statistics(container.upstreams().upstreams)
        bound = container.cache_capacity().max_bytes
        usage = f"{storage_folder(self._settings)} uses {decimal(found.size)} of {decimal(bound)}"
        if found.size + found.space.free < bound:
            free = f"only {decimal(found.space.free)} are free on the disk"
            print(f"warning: the cache in {usage}, but {free}; set CACHE_SIZE to a size that the disk has, such as 80%")
        else:
            print(f"ok: the cache in {usage}; {decimal(found.space.free)} are free on the disk")

    async def _check_pins(self, container: Container) -> None:
        try:
            found = await container.pinned_images().totals()
        except StorageFailed as error:
            self._report_problem(str(error))
            return
        bound = container.cache_capacity().max_bytes
        if found.size > bound:
            print(
                f"warning: the pinned images have {decimal(found.size)}, and the cache may have only {decimal(bound)}; "
                "raise CACHE_SIZE or unpin images"
            )
        if found.problems:
            print(f"warning: {found.problems} of {found.count} pinned images failed the last check; see `cache pins`")
        elif found.count:
            print(f"ok: the pinned images ({found.count}) have {decimal(found.size)}")

    async def _check_address(self, container: Container, upstream: Upstream) -> None:
        """Resolve the name of the upstream, or of the proxy to it, which resolves the upstream's name itself."""
        origin = upstream.origin
        proxy = container.clients()[upstream].proxy_to(URL(upstream.url))
        host = (urlsplit(proxy).hostname or "") if proxy else origin.host
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            advice = "" if proxy else ", or set HTTP_PROXY and HTTPS_PROXY if this machine needs a proxy"
            self._report_problem(
                f"cannot resolve {host} ({error.strerror or error}); check the name and this machine's DNS{advice}"
            )
        else:
            role = f", the proxy to {origin.host}," if proxy else ""
            print(f"ok: {host}{role} has the address {', '.join(sorted({str(entry[4][0]) for entry in found}))}")

    def _check_clock(self, now: float, upstream_time: float | None) -> None:
        if upstream_time is None:
            print("ok: the upstream sends no Date header; the clock of this machine was not compared")
            return
        ahead = now - upstream_time
        if abs(ahead) > _CLOCK_SECONDS:
            direction = "ahead of" if ahead > 0 else "behind"
            self._report_problem(
                f"the clock of this machine is {abs(ahead):.0f} seconds {direction} the upstream's; correct it (NTP), "
                "or tokens and certificates are rejected"
            )
        else:
            print("ok: the clock of this machine agrees with the upstream's")

    def _print_allowance(self, container: Container, upstream: Upstream) -> None:
        """Print the rate limit, which upstreams send with manifests only."""
        known = container.allowances().newest(upstream)
        if known is None:
            return
        left = f"{known.remaining} of {known.limit} manifests in {known.window / 3600:g} hours are left for this mirror"
        if known.is_low:
            hint = "; with a login of its own (UPSTREAM_IDENTITY) the mirror may get more"
            print(f"warning: only {left} at {upstream.url}{'' if upstream.credentials else hint}")
        else:
            print(f"ok: {left} at {upstream.url}")

    async def _check_image(self, container: Container, image: Image, reached: Collection[Upstream]) -> None:
        """Ask for the manifest of the image if its upstream is one of `reached`."""
        name, reference = image
        hint = container.upstreams().hint_for(name)
        try:
            upstream = container.upstreams().source_of(name, hint).upstream
        except NameUnknown as error:
            self._report_problem(f"{name}: {error.message}")
            return
        if upstream not in reached:
            return
        text = f"{name}{reference.suffix}"
        try:
            # Asks as a client, to whom the access rules apply.
            caller = replace(await container.mirror_caller()(name, hint), is_operator=False)
            query = ManifestQuery(name, reference, (", ".join(MANIFEST_MEDIA_TYPES),), head=True, hint=hint)
            found = await container.pull_manifest()(caller, query)
        except Unauthorized:
            print(f"warning: {text}: the upstream requires a login for it; only clients with a login can pull it")
        except RegistryError as error:
            self._report_problem(f"{text}: {error.message}")
        else:
            print(f"ok: {text} is {found.digest}, {found.media_type}")
        self._print_allowance(container, upstream)
