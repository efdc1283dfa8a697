"""The `cache` commands: inspect and maintain the cache, with or without a running service."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from application.ports.content import StorageFailed
from application.upkeep.image_tree import TagEntry
from application.upkeep.manage_cache import ImagePinned
from domain.digest import Digest
from domain.errors import NameUnknown
from domain.names import Tag
from domain.upstream_table import UpstreamTable
from domain.upstreams import Source, Upstream
from entrypoints.commands.command_input import InvalidInput, parse_image
from entrypoints.settings import Settings, SettingsError
from entrypoints.version import NAME
from entrypoints.wiring.container import Container, open_container
from entrypoints.wiring.storage import act_as_owner, prepare_storage, storage_folder

_DAY = 86400.0
_PROBLEM = 1
_PIPE_WIDTH = 1000


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Returns the exit status: 0, or 1 if content is damaged, nothing matched, the image to purge is pinned, or the
    running workers cannot be told.
    """
    if settings.cache_dir is None:
        raise SettingsError("CACHE_DIR: the cache is off")
    act_as_owner(settings, may_stay_root=True)
    prepare_storage(settings)
    return asyncio.run(_run(settings, options))


async def _run(settings: Settings, options: argparse.Namespace) -> int:
    async with open_container(settings) as container:
        try:
            return await _ACTIONS[options.action](container, options)
        except (StorageFailed, ImagePinned) as error:
            print(f"{NAME}: {error}", file=sys.stderr)
            return _PROBLEM


async def _stats(container: Container, _: argparse.Namespace) -> int:
    found = await container.manage_cache().statistics(container.upstreams().upstreams)
    pinned = await container.pinned_images().totals()
    settings: Settings = container.settings()
    rows = [
        ("folder", str(storage_folder(settings))),
        *(("upstream", upstream.url) for upstream in container.upstreams().upstreams),
        ("content", f"{found.count} manifests and blobs, {decimal(found.size)}"),
        ("pinned", f"{found.pinned.count} manifests and blobs, {decimal(found.pinned.size)}"),
        ("pinned images", f"{pinned.count}, {decimal(pinned.size)}; {pinned.problems} with a problem"),
        ("limit", decimal(container.cache_capacity().max_bytes)),
        ("being downloaded", decimal(found.space.partial_blobs)),
        ("free on the disk", decimal(found.space.free)),
        ("tags", str(found.tags)),
        ("least recently used", shown_time(found.oldest)),
        ("most recently used", shown_time(found.newest)),
    ]
    print_rows(rows)
    return 0


async def _ls(container: Container, _: argparse.Namespace) -> int:
    await print_tags(container.upstreams(), container.manage_cache().tags, "CACHED")
    return 0


async def _verify(container: Container, _: argparse.Namespace) -> int:
    intact = damaged = 0
    async for verdict in container.manage_cache().verify():
        if verdict.is_right:
            intact += 1
            continue
        damaged += 1
        print(f"damaged, removed: {verdict.used.digest}")
    print(f"{intact} intact, {damaged} damaged")
    return _PROBLEM if damaged else 0


async def _purge(container: Container, options: argparse.Namespace) -> int:
    found = source_to_purge(container.upstreams(), options.image)
    if found is None:
        return _PROBLEM
    removed = await container.manage_cache().purge(*found)
    if not removed:
        print(f"{NAME}: {options.image} is not in the cache", file=sys.stderr)
        return _PROBLEM
    for digest in removed:
        print(digest)
    print(f"{len(removed)} removed; a running service stops serving them within seconds")
    return 0


async def _prune(container: Container, options: argparse.Namespace) -> int:
    removed = await container.manage_cache().prune(seconds_unused(options))
    print(f"{len(removed)} removed, {decimal(sum(one.size for one in removed))}")
    return 0


# --- what the commands for the shared store use too ---


async def print_tags(
    upstreams: UpstreamTable, tags_of: Callable[[Upstream], Awaitable[list[TagEntry]]], held: str
) -> None:
    """Print the tags of all upstreams. `held`: the heading of the bytes that are stored."""
    table = Table(box=None)
    for name in ("IMAGE", "DIGEST", held, "SIZE", "CHECKED"):
        table.add_column(name, justify="right" if name in {held, "SIZE"} else "left", no_wrap=name != "IMAGE")
    for upstream in upstreams.upstreams:
        for entry in await tags_of(upstream):
            key = entry.cached_tag.key
            sizes = ["-" if size is None else decimal(size) for size in (entry.held, entry.size)]
            digest = str(entry.cached_tag.digest)[:19]
            table.add_row(
                f"{upstreams.name_of(key.source)}:{key.tag}", digest, *sizes, shown_time(entry.cached_tag.checked_at)
            )
    print_table(table)


def source_to_purge(upstreams: UpstreamTable, image: str) -> tuple[Source, Tag | Digest | None] | None:
    """The repository, and the tag or the digest of the image. If the registry is not mirrored, says so and returns
    None. Raises InvalidInput.
    """
    name, reference = parse_image(image)
    try:
        source = upstreams.source_of(name, upstreams.hint_for(name))
    except NameUnknown as error:
        print(f"{NAME}: {image}: {error.message}", file=sys.stderr)
        return None
    return source, reference.target if reference else None


def seconds_unused(options: argparse.Namespace) -> float:
    """The value of --older-than. Raises InvalidInput."""
    if options.older_than < 0:
        raise InvalidInput("--older-than takes a number of days, 0 or more")
    return float(options.older_than * _DAY)


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values below each other."""
    table = Table(box=None, show_header=False)
    for row in rows:
        table.add_row(*row)
    print_table(table)


def print_table(table: Table) -> None:
    """Print the table. If the output is not a terminal, nothing is truncated."""
    console = Console()
    # rich limits a table to the width of its console.
    (console if console.is_terminal else Console(width=_PIPE_WIDTH)).print(table)


def shown_time(seconds: float | None) -> str:
    """`seconds`: since 1970."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


_ACTIONS = {"stats": _stats, "ls": _ls, "verify": _verify, "purge": _purge, "prune": _prune}
