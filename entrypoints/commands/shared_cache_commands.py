"""The `cache` commands with --shared: inspect and maintain what all replicas share, from any machine."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace

from rich.filesize import decimal

from application.ports.content import StorageFailed
from application.ports.shared import SharedUnavailable
from application.upkeep.manage_cache import ImagePinned
from application.upkeep.manage_shared_content import ManageSharedContent, State
from entrypoints.commands.cache_commands import print_rows, print_tags, seconds_unused, shown_time, source_to_purge
from entrypoints.settings import Settings, SettingsError
from entrypoints.version import NAME
from entrypoints.wiring.container import Container, open_container
from entrypoints.wiring.storage import act_as_owner, prepare_storage

_PROBLEM = 1


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Returns the exit status: 0, or 1 if content is damaged, nothing matched, the image to purge is pinned, or the
    shared store or the shared index does not answer. Raises SettingsError.
    """
    if not settings.is_shared:
        raise SettingsError("SHARED_STORE: is not set, so there is no shared store")
    if options.action == "purge" and settings.cache_dir is not None and os.path.isdir(settings.cache_dir):  # noqa: PTH112
        act_as_owner(settings, may_stay_root=True)
        prepare_storage(settings)
    else:
        settings = replace(settings, cache_dir=None)  # the machine need not be a replica
    # The command itself reports failures.
    logging.getLogger("docker_image_proxy").addHandler(logging.NullHandler())
    return asyncio.run(_run(settings, options))


async def _run(settings: Settings, options: argparse.Namespace) -> int:
    async with open_container(settings) as container:
        manage = container.manage_shared_content()
        assert manage  # noqa: S101 - `run` has checked the settings
        try:
            for service in container.shared_services():  # so that no command ends halfway without one of them
                await service.check()
            return await _ACTIONS[options.action](container, manage, options)
        except (SharedUnavailable, StorageFailed) as error:
            failures = [f"{one.setting}: {one.failure}" for one in container.shared_services() if one.failure]
            print(f"{NAME}: {failures[0] if failures else error}", file=sys.stderr)
            return _PROBLEM
        except ImagePinned as error:
            print(f"{NAME}: {error}", file=sys.stderr)
            return _PROBLEM


async def _stats(container: Container, manage: ManageSharedContent, _: argparse.Namespace) -> int:
    settings: Settings = container.settings()
    found = await manage.statistics(container.upstreams().upstreams)
    store, index = (service.address for service in container.shared_services())
    print_rows(
        [
            ("store", store),
            ("index", index),
            *(("upstream", upstream.url) for upstream in container.upstreams().upstreams),
            ("content", f"{found.count} manifests and blobs, {decimal(found.size)}"),
            ("limit", decimal(settings.shared_size)),
            ("unfinished downloads", decimal(found.unfinished)),
            ("tags", str(found.tags)),
            ("least recently used", shown_time(found.oldest)),
            ("most recently used", shown_time(found.newest)),
        ]
    )
    return 0


async def _ls(container: Container, manage: ManageSharedContent, _: argparse.Namespace) -> int:
    await print_tags(container.upstreams(), manage.tags, "SHARED")
    return 0


async def _verify(_: Container, manage: ManageSharedContent, __: argparse.Namespace) -> int:
    counts = dict.fromkeys(State, 0)
    async for digest, state in manage.verify():
        counts[state] += 1
        if state is State.DAMAGED:
            print(f"damaged, removed: {digest}", flush=True)
        elif state is State.UNREADABLE:
            print(f"not readable by this release, kept: {digest}", flush=True)
    unreadable = f", {counts[State.UNREADABLE]} not readable" if counts[State.UNREADABLE] else ""
    print(f"{counts[State.RIGHT]} intact, {counts[State.DAMAGED]} damaged{unreadable}")
    return _PROBLEM if counts[State.DAMAGED] else 0


async def _purge(container: Container, manage: ManageSharedContent, options: argparse.Namespace) -> int:
    found = source_to_purge(container.upstreams(), options.image)
    if found is None:
        return _PROBLEM
    removed = await manage.purge(*found)
    digests = dict.fromkeys((*removed.shared, *removed.local))
    if not digests:
        print(f"{NAME}: {options.image} is not in the shared store", file=sys.stderr)
        return _PROBLEM
    for digest in digests:
        print(digest)
    here = f", {len(removed.local)} from this machine" if removed.local else ""
    print(f"{len(removed.shared)} removed from the shared store{here}; other replicas keep what is in their folders")
    return 0


async def _prune(_: Container, manage: ManageSharedContent, options: argparse.Namespace) -> int:
    count, size = await manage.prune(seconds_unused(options))
    print(f"{count} removed, {decimal(size)}")
    return 0


_Action = Callable[[Container, ManageSharedContent, argparse.Namespace], Awaitable[int]]
_ACTIONS: dict[str, _Action] = {"stats": _stats, "ls": _ls, "verify": _verify, "purge": _purge, "prune": _prune}
