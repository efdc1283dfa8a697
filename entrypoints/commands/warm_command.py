"""The `warm` command: pulls images into the cache."""

import argparse
import asyncio
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from application.upkeep.warm import Image, NoSuchPlatform
from domain.access import Credentials
from domain.errors import RegistryError
from entrypoints.commands.command_input import ask_password, parse_image_or_latest, parse_platforms
from entrypoints.settings import Settings, SettingsError
from entrypoints.wiring.container import Container, open_container
from entrypoints.wiring.storage import act_as_owner, prepare_storage

_PROBLEM = 1
COLUMNS = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
"""Of the progress of a pull."""


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Returns the exit status: 0, or 1 if an image could not be pulled."""
    if settings.cache_dir is None:
        raise SettingsError("CACHE_DIR: the cache is off, so no image can be pulled into it")
    act_as_owner(settings, may_stay_root=False)
    prepare_storage(settings)
    platforms = tuple(parse_platforms([options.platform])) if options.platform is not None else ()
    images = [Image(*parse_image_or_latest(text), platforms) for text in options.images]
    login = Credentials(options.user, ask_password(options.user)) if options.user else None
    return asyncio.run(_warm(settings, images, login))


async def _warm(settings: Settings, images: list[Image], login: Credentials | None) -> int:
    failed = 0
    bar = Progress(*COLUMNS, console=Console(stderr=True))
    async with open_container(settings) as container:
        with bar:
            for image in images:
                try:
                    await _pull(container, image, login, bar)
                except (RegistryError, NoSuchPlatform) as error:
                    failed += 1
                    bar.console.print(f"{image.name}:{image.reference}: {error}", highlight=False, soft_wrap=True)
        await container.replicas().finished()  # so that the other replicas have the images, too
    return _PROBLEM if failed else 0


async def _pull(container: Container, image: Image, login: Credentials | None, bar: Progress) -> None:
    image = replace(image, hint=container.upstreams().hint_for(image.name))
    caller = await container.mirror_caller()(image.name, image.hint, login)
    shown = bar.add_task(f"{image.name}:{image.reference}", total=None)
    try:
        async for progress in container.warm_cache()(caller, image):
            bar.update(shown, total=progress.total, completed=progress.done)
    except (RegistryError, NoSuchPlatform):
        bar.remove_task(shown)
        raise
