"""`cache`: looks into the cache and puts it right, beside a running service or without one."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from domain.errors import NameUnknown
from domain.names import Tag
from entrypoints.commands.command_input import parse_image
from entrypoints.settings import Settings, SettingsError
from entrypoints.version import NAME
from entrypoints.wiring.container import Container, open_container
from entrypoints.wiring.storage import act_as_owner, prepare_storage, storage_folder

_DAY = 86400.0
_TROUBLE = 1
_WRONG = 2
_PIPE_WIDTH = 1000

Action = Callable[[Container, argparse.Namespace], Awaitable[int]]


def run_cache_command(settings: Settings, options: argparse.Namespace) -> int:
    """The exit status: 0, 1 where damage was found or nothing matched, 2 for wrong words."""
    if settings.cache_dir is None:
        raise SettingsError("CACHE_DIR: is off; there is no cache to look into")
    act_as_owner(settings, may_stay_root=True)
    prepare_storage(settings)
    return asyncio.run(_run(settings, options))


async def _run(settings: Settings, options: argparse.Namespace) -> int:
    async with open_container(settings) as container:
        try:
            return await _ACTIONS[options.command](container, options)
        except ValueError as error:
            print(f"{NAME}: {error}", file=sys.stderr)
            return _WRONG


async def _stats(container: Container, _: argparse.Namespace) -> int:
    found = await container.inspect_cache().statistics(container.upstreams().upstreams)
    settings: Settings = container.settings()
    table = Table(box=None, show_header=False)
    table.add_row("folder", str(storage_folder(settings)))
    for upstream in container.upstreams().upstreams:
        table.add_row("upstream", upstream.url)
    table.add_row("content", f"{found.count} manifests and blobs, {decimal(found.size)}")
    table.add_row("bound", decimal(container.room().bound))
    table.add_row("being fetched", decimal(found.space.partial_blobs))
    table.add_row("free on the disk", decimal(found.space.free))
    table.add_row("tags", str(found.tags))
    table.add_row("least recently used", _time(found.oldest))
    table.add_row("most recently used", _time(found.newest))
    _print(table)
    return 0


async def _ls(container: Container, _: argparse.Namespace) -> int:
    table = Table(box=None)
    for name in ("IMAGE", "DIGEST", "HERE", "OF", "CHECKED"):
        table.add_column(name, justify="right" if name in {"HERE", "OF"} else "left", no_wrap=name != "IMAGE")
    upstreams = container.upstreams()
    for upstream in upstreams.upstreams:
        for entry in await container.inspect_cache().tags(upstream):
            key = entry.cached_tag.key
            sizes = ["-" if size is None else decimal(size) for size in (entry.held, entry.size)]
            digest = str(entry.cached_tag.digest)[:19]
            name = upstreams.name_of(key.source)
            table.add_row(f"{name}:{key.tag}", digest, *sizes, _time(entry.cached_tag.checked_at))
    _print(table)
    return 0


async def _verify(container: Container, _: argparse.Namespace) -> int:
    right = wrong = 0
    async for verdict in container.inspect_cache().verify():
        if verdict.is_right:
            right += 1
            continue
        wrong += 1
        print(f"damaged, dropped: {verdict.used.digest}")
    print(f"{right} right, {wrong} damaged")
    return _TROUBLE if wrong else 0


async def _purge(container: Container, options: argparse.Namespace) -> int:
    name, reference = parse_image(options.image)
    if reference is not None and not isinstance(reference.target, Tag):
        raise ValueError("purge takes NAME or NAME:TAG")
    tag = reference.target if reference and isinstance(reference.target, Tag) else None
    upstreams = container.upstreams()
    try:
        source = upstreams.source_of(name, upstreams.hint_for(name))
    except NameUnknown as error:
        print(f"{NAME}: {options.image}: {error.message}", file=sys.stderr)
        return _TROUBLE
    dropped = await container.inspect_cache().purge(source, tag)
    if not dropped:
        print(f"{NAME}: nothing of {options.image} is here", file=sys.stderr)
        return _TROUBLE
    for digest in dropped:
        print(digest)
    print(f"{len(dropped)} dropped; a running service forgets them within seconds")
    return 0


async def _prune(container: Container, options: argparse.Namespace) -> int:
    if options.older_than < 0:
        raise ValueError("--older-than takes a number of days, 0 or more")
    dropped = await container.inspect_cache().prune(options.older_than * _DAY)
    print(f"{len(dropped)} dropped, {decimal(sum(one.size for one in dropped))}")
    return 0


def _print(table: Table) -> None:
    """Into a pipe nothing is cut off, whatever a terminal would have room for."""
    console = Console()
    # A table is never wider than its console, whatever `print` is told.
    (console if console.is_terminal else Console(width=_PIPE_WIDTH)).print(table)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


_ACTIONS: dict[str, Action] = {"stats": _stats, "ls": _ls, "verify": _verify, "purge": _purge, "prune": _prune}
