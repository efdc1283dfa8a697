"""The `cache` commands for pinned images, with or without a running service."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress
from rich.table import Table

from application.ports.content import StorageFailed
from application.upkeep.pinned_images import PinState
from domain.errors import NameUnknown
from domain.names import Reference
from domain.pins import Pin
from domain.upstream_table import UpstreamTable
from domain.upstreams import Source
from entrypoints.commands.cache_commands import print_table, shown_time
from entrypoints.commands.command_input import parse_image_or_latest, parse_platforms
from entrypoints.commands.warm_command import COLUMNS
from entrypoints.settings import Settings, SettingsError
from entrypoints.version import NAME
from entrypoints.wiring.container import Container, open_container
from entrypoints.wiring.storage import act_as_owner, prepare_storage

_PROBLEM = 1
_ALL = "all"
_OWN_CHECK_SECONDS = 300.0
"""A running service leaves the first check to the command, and makes it if the command was ended."""


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Returns the exit status: 0, or 1 if the image is not pinned, or if it could not be fetched completely."""
    if settings.cache_dir is None:
        raise SettingsError("CACHE_DIR: the cache is off, so no image can be pinned")
    act_as_owner(settings, may_stay_root=options.action != "pin")
    prepare_storage(settings)
    return asyncio.run(_run(settings, options))


async def _run(settings: Settings, options: argparse.Namespace) -> int:
    async with open_container(settings) as container:
        try:
            return await ACTIONS[options.action](container, options)
        except (StorageFailed, NameUnknown) as error:
            message = error.message if isinstance(error, NameUnknown) else error
            print(f"{NAME}: {message}", file=sys.stderr)
            return _PROBLEM


async def _pin(container: Container, options: argparse.Namespace) -> int:
    source, reference = _image(container.upstreams(), options.image)
    platforms = parse_platforms(one for one in options.platform if one != _ALL) if options.platform else None
    pins = container.pinned_images()
    image = await pins.pin(source, reference, platforms, delay=_OWN_CHECK_SECONDS)
    with Progress(*COLUMNS, console=Console(stderr=True)) as bar:
        shown = bar.add_task(options.image, total=None)
        async for progress in pins.fetch(image):
            bar.update(shown, total=progress.total, completed=progress.done)
        bar.remove_task(shown)
    state = next((one for one in await pins.states() if one.image.pin.key == image.pin.key), None)
    if state is None:
        print(f"{NAME}: {options.image} was unpinned meanwhile", file=sys.stderr)
        return _PROBLEM
    if state.image.problem:
        print(f"{NAME}: {options.image} is pinned, but: {state.image.problem}", file=sys.stderr)
        return _PROBLEM
    print(f"{options.image} is pinned: {state.image.digest}, {decimal(state.image.size)}")
    return 0


async def _unpin(container: Container, options: argparse.Namespace) -> int:
    pins = container.pinned_images()
    if not await pins.unpin(await _pinned(container, options.image)):
        print(f"{NAME}: {options.image} is not pinned", file=sys.stderr)
        return _PROBLEM
    print(f"{options.image} is not pinned any more; it stays in the cache until the space is needed")
    return 0


async def _pins(container: Container, _: argparse.Namespace) -> int:
    table = Table(box=None)
    for name in ("IMAGE", "PLATFORMS", "DIGEST", "CACHED", "SIZE", "CHECKED", "STATE"):
        table.add_column(name, justify="right" if name in {"CACHED", "SIZE"} else "left")
    for state in await container.pinned_images().states():
        image = state.image
        table.add_row(
            _name(container.upstreams(), state),
            ", ".join(image.pin.platforms) or _ALL,
            str(image.digest or "-")[:19],
            decimal(state.held),
            decimal(image.size),
            shown_time(image.checked_at),
            image.problem or ("complete" if state.is_complete else "incomplete"),
        )
    print_table(table)
    return 0


def _image(upstreams: UpstreamTable, text: str) -> tuple[Source, Reference]:
    """Raises InvalidInput, and NameUnknown for a registry that is not mirrored."""
    name, reference = parse_image_or_latest(text)
    return upstreams.source_of(name, upstreams.hint_for(name)), reference


async def _pinned(container: Container, text: str) -> Pin:
    """The pin with this name. As `_image`, and takes the name that `cache pins` shows for an image of an upstream that
    is not mirrored any more.
    """
    for state in await container.pinned_images().states():
        if state.source is None and _name(container.upstreams(), state) == text:
            return state.image.pin
    source, reference = _image(container.upstreams(), text)
    return Pin(source.upstream.url, source.repository, reference)


def _name(upstreams: UpstreamTable, state: PinState) -> str:
    """The name with which the other commands take the image; with the URL of an upstream that is not mirrored now."""
    pin = state.image.pin
    if state.source is None:
        return f"{pin.upstream_url}/{pin}"
    return f"{upstreams.name_of(state.source)}{pin.reference.suffix}"


ACTIONS: dict[str, Callable[[Container, argparse.Namespace], Awaitable[int]]] = {
    "pin": _pin,
    "unpin": _unpin,
    "pins": _pins,
}
