"""doctor: what stands between this mirror and its work, in plain words, and what to do about it."""

import asyncio
import socket
import sys
from dataclasses import replace
from urllib.parse import urlsplit

from rich.filesize import decimal
from yarl import URL

from application.manifests.manifest_query import ManifestQuery
from application.ports.upstream import PingResponse
from domain.content import MANIFEST_MEDIA_TYPES
from domain.errors import NameUnknown, RegistryError, Unauthorized
from domain.names import Reference, RepositoryName
from domain.upstreams import NO_HINT, RegistryHint, Upstream
from entrypoints.commands.check_config import report
from entrypoints.commands.command_input import parse_image_or_latest
from entrypoints.commands.warm_command import caller_for
from entrypoints.settings import Settings, SettingsError
from entrypoints.version import NAME
from entrypoints.wiring.container import Container, open_container
from entrypoints.wiring.storage import act_as_owner, prepare_storage, storage_folder

_TROUBLE = 1
_WRONG = 2
_CLOCK_SECONDS = 60
"""Tokens of most servers are not believed before their time, and live for minutes."""

Image = tuple[RepositoryName, Reference]


def run_doctor(settings: Settings, text: str | None) -> int:
    """The exit status: 0 where nothing is wrong, 1 where something is, 2 for wrong words."""
    try:
        image = parse_image_or_latest(text) if text else None
    except ValueError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return _WRONG
    return asyncio.run(_Doctor(settings).examine(image))


class _Doctor:
    """Looks at one thing after another; what is wrong with one is no reason to leave out the next."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._status = 0

    async def examine(self, image: Image | None) -> int:
        for warning in self._settings.warnings:
            print(f"warning: {warning}")
        is_kept = self._folder()
        settings = self._settings if is_kept else replace(self._settings, cache_dir=None)
        async with open_container(settings) as container:
            if is_kept:
                await self._room(container)
            reached = [one for one in container.upstreams().upstreams if await self._reach(container, one)]
            hint = container.upstreams().hint_for(image[0]) if image else NO_HINT
            if image and (asked := self._asked(container, image, hint)) in reached:
                await self._image(container, image, hint)
                self._allowance(container, asked)
        return self._status

    def _asked(self, container: Container, image: Image, hint: RegistryHint) -> Upstream | None:
        try:
            return container.upstreams().source_of(image[0], hint).upstream
        except NameUnknown as error:
            self._wrong(f"{image[0]}: {error.message}")
            return None

    async def _reach(self, container: Container, upstream: Upstream) -> bool:
        for endpoint in upstream.endpoints:
            await self._address(container, endpoint)
        answer = await self._upstream(container, upstream)
        if answer:
            self._clock(container.clock().now(), answer.server_time)
        return answer is not None

    def _wrong(self, text: str) -> None:
        self._status = _TROUBLE
        print(f"error: {text}")

    def _folder(self) -> bool:
        """Whether there is a cache that can be used."""
        if self._settings.cache_dir is None:
            print("ok: the cache is off")
            return False
        try:
            act_as_owner(self._settings, may_stay_root=True)
            prepare_storage(self._settings)
        except SettingsError as error:
            self._wrong(str(error))
            return False
        return True

    async def _room(self, container: Container) -> None:
        found, bound = (
            await container.inspect_cache().statistics(container.upstreams().upstreams),
            container.room().bound,
        )
        what = f"{storage_folder(self._settings)} holds {decimal(found.size)} of {decimal(bound)}"
        if found.size + found.space.free < bound:
            free = f"only {decimal(found.space.free)} are free on the disk"
            print(f"warning: the cache in {what}, but {free}; set CACHE_SIZE to what it may have, such as 80%")
        else:
            print(f"ok: the cache in {what}; {decimal(found.space.free)} are free on the disk")

    async def _address(self, container: Container, upstream: Upstream) -> None:
        """Of the upstream, or of the proxy that it is reached through, which looks the upstream's up itself."""
        origin = upstream.origin
        proxy = container.clients().of(upstream).proxy_to(URL(upstream.url))
        host = (urlsplit(proxy).hostname or "") if proxy else origin.host
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            way = "" if proxy else ", or HTTP_PROXY and HTTPS_PROXY if this machine goes through one"
            self._wrong(f"{host} has no address ({error.strerror or error}); check the name, this machine's DNS{way}")
        else:
            by = f", the proxy to {origin.host}," if proxy else ""
            print(f"ok: {host}{by} is at {', '.join(sorted({str(entry[4][0]) for entry in found}))}")

    async def _upstream(self, container: Container, upstream: Upstream) -> PingResponse | None:
        """Its answer, if TLS, ping and tokens are well."""
        try:
            return await report(self._settings, container, upstream)
        except RegistryError as error:
            self._wrong(f"{upstream.url}: {error.message}")
            return None

    def _clock(self, now: float, said: float | None) -> None:
        if said is None:
            print("ok: the upstream does not say what time it is; this machine's clock was not compared")
            return
        ahead = now - said
        if abs(ahead) > _CLOCK_SECONDS:
            direction = "ahead of" if ahead > 0 else "behind"
            self._wrong(
                f"this machine's clock is {abs(ahead):.0f} seconds {direction} the upstream's; set it (NTP), or tokens "
                "and certificates are refused"
            )
        else:
            print("ok: this machine's clock agrees with the upstream's")

    def _allowance(self, container: Container, upstream: Upstream) -> None:
        """What it said of that when it was asked for the image, of which it speaks nowhere else."""
        known = container.allowances().newest(upstream)
        if known is None:
            return
        what = f"{known.remaining} of {known.limit} manifests in {known.window / 3600:g} hours are left to this mirror"
        if not known.is_low:
            print(f"ok: {what} at {upstream.url}")
            return
        more = "" if upstream.credentials else "; a login of its own (UPSTREAM_IDENTITY) may have more"
        print(f"warning: only {what} at {upstream.url}{more}")

    async def _image(self, container: Container, image: Image, hint: RegistryHint) -> None:
        name, reference = image
        text = f"{name}{'@' if reference.digest else ':'}{reference}"
        try:
            caller = await caller_for(container, name, hint, None)
            query = ManifestQuery(name, reference, (", ".join(MANIFEST_MEDIA_TYPES),), head=True, hint=hint)
            found = await container.pull_manifest()(caller, query)
        except Unauthorized:
            print(f"warning: {text}: nobody gets it without a login at the upstream; it is for clients that have one")
        except RegistryError as error:
            self._wrong(f"{text}: {error.message}")
        else:
            print(f"ok: {text} is {found.digest}, {found.media_type}")
