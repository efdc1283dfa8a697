"""The `warm` command: pulls images into the cache."""

import argparse
import asyncio
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from application.access.access_request import Caller
from application.access.grant_token import TokenQuery
from application.upkeep.warm import Image, NoSuchPlatform
from domain.access import Credentials, Scope, ScopeSet
from domain.authorization import Basic, Bearer, encode_basic
from domain.errors import RegistryError
from domain.names import RepositoryName
from domain.trust import BasicRule, BearerRule, TrustRow
from domain.upstream_table import RegistryHint
from domain.upstreams import Upstream
from entrypoints.commands.command_input import ask_password, parse_image_or_latest
from entrypoints.settings import Settings, SettingsError
from entrypoints.settings.values import read_htpasswd
from entrypoints.wiring.container import Container, open_container
from entrypoints.wiring.storage import act_as_owner, prepare_storage

_PROBLEM = 1


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Returns the exit status: 0, or 1 if an image could not be pulled."""
    if settings.cache_dir is None:
        raise SettingsError("CACHE_DIR: the cache is off, so no image can be pulled into it")
    act_as_owner(settings, may_stay_root=False)
    prepare_storage(settings)
    images = [Image(*parse_image_or_latest(text), options.platform) for text in options.images]
    login = Credentials(options.user, ask_password(options.user)) if options.user else None
    return asyncio.run(_warm(settings, images, login))


async def _warm(settings: Settings, images: list[Image], login: Credentials | None) -> int:
    failed = 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True))
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
    caller = replace(await caller_for(container, image.name, image.hint, login), is_operator=True)
    shown = bar.add_task(f"{image.name}:{image.reference}", total=None)
    try:
        async for progress in container.warm_cache()(caller, image):
            bar.update(shown, total=progress.total, completed=progress.done)
    except (RegistryError, NoSuchPlatform):
        bar.remove_task(shown)
        raise


async def caller_for(
    container: Container, name: RepositoryName, hint: RegistryHint, login: Credentials | None
) -> Caller:
    """The caller that the trust row accepts: the given user, else the mirror's own account, else an anonymous one."""
    realm = "http://localhost/v2/auth"  # appears only in challenges, which are not sent
    upstream = container.upstreams().source_of(name, hint).upstream
    row, _ = await container.upstream_auth().row(upstream)
    if login is not None and row.basic is not BasicRule.REFUSE:
        return Caller(Basic(login, f"Basic {encode_basic(login)}"), realm)
    token = await _token(
        container, row, upstream, TokenQuery(scopes=ScopeSet((Scope.pull(name),)), credentials=login, hint=hint)
    )
    return Caller(Bearer(token, f"Bearer {token}") if token else None, realm)


async def _token(container: Container, row: TrustRow, upstream: Upstream, query: TokenQuery) -> str | None:
    if query.credentials is not None and row.relays:
        return (await container.grant_token()(query)).text
    settings: Settings = container.settings()
    account = container.policy().account(_an_account(settings))
    if row.bearer in {BearerRule.OURS, BearerRule.OURS_OR_PASS, BearerRule.EITHER_OF_OURS}:
        return container.issuer().issue(account, query.scopes).text
    if row.bearer is BearerRule.COUNTERSIGNED:
        return container.issuer().countersign(account, query.scopes, upstream, None).text
    return None


def _an_account(settings: Settings) -> str:
    """The name of any account; "" if there are none. An operator who can read the settings may pull as any account."""
    if settings.accounts:
        return settings.accounts[0].username
    return next(iter(read_htpasswd(settings.htpasswd_file))) if settings.htpasswd_file else ""
