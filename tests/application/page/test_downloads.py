"""Which running downloads the page shows, and to whom: to those who could join them."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from dependency_injector import providers

from application.page.downloads import ShownDownloads
from application.ports.activity import Activity, DownloadState
from domain.digest import Digest
from domain.errors import RegistryError
from domain.names import RepositoryName
from domain.records import ANONYMOUS_CLASS, ContentKind, ContentLocation, Link
from tests.application.page.gallery import PEOPLE, Gallery
from tests.application.support.ruled import CLOSED, FOR_ACCOUNTS, ruled
from tests.application.support.service import NAME, PRIVATE
from tests.application.support.trust_table import ROWS
from tests.application.support.watched import BIG, BIG_DIGEST, PIECE, challenged, held, soon
from tests.fakes.activity import MemoryActivityTable

EACH_ROW = pytest.mark.parametrize("row", ROWS)
WITH_ACCOUNTS = [row for row, (*_, has_accounts, _) in ROWS.items() if has_accounts]


@asynccontextmanager
async def downloading(gallery: Gallery, puller: str, name: RepositoryName) -> AsyncIterator["asyncio.Task[bytes]"]:
    """The person's download of the blob is half done meanwhile, if the upstream allows it, and then goes on."""
    gate = held(gallery.upstream)
    pull = read(gallery, puller, name)
    try:
        await soon(lambda: pull.done() or present(gallery) >= PIECE)
        await settled(gallery)
        yield pull
    finally:
        gate.set()
        with suppress(RegistryError):
            assert await pull == BIG
        await gallery.service.parts.downloads().finished()
        await settled(gallery)


def read(gallery: Gallery, person: str, name: RepositoryName) -> "asyncio.Task[bytes]":
    return asyncio.create_task(gallery.service.blob(gallery.header(person), name, BIG_DIGEST))


def states(gallery: Gallery) -> list[DownloadState]:
    found: list[DownloadState] = gallery.service.parts.downloads().states()
    return found


def present(gallery: Gallery) -> int:
    return sum(state.present for state in states(gallery))


async def settled(gallery: Gallery) -> None:
    """The links and grants are written."""
    await gallery.service.parts.background().close()


async def gets_manifest(gallery: Gallery, person: str, name: RepositoryName) -> bool:
    """The person pulls the manifest. Returns whether the upstream and the mirror allow it."""
    try:
        await gallery.service.manifest(gallery.header(person), name)
    except RegistryError:
        return False
    finally:
        await settled(gallery)
    return True


async def seen_by(gallery: Gallery, person: str) -> ShownDownloads:
    parts = gallery.service.parts
    parts.activity_table().report(Activity(states(gallery)))
    asked = len(gallery.upstream.asked)
    shown: ShownDownloads = await parts.list_downloads()(await gallery.viewer(person), parts.upstreams().upstreams)
    assert len(gallery.upstream.asked) == asked
    return shown


async def names(gallery: Gallery, person: str) -> list[str]:
    return [str(one.source.repository) for one in (await seen_by(gallery, person)).shown]


@EACH_ROW
@pytest.mark.parametrize("name", [NAME, PRIVATE], ids=["public", "private"])
@pytest.mark.parametrize("puller", PEOPLE)
def test_a_download_is_shown_to_those_whom_the_api_would_serve_the_blob(
    row: str, puller: str, name: RepositoryName
) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        async with downloading(gallery, puller, name):
            seen = {person: await names(gallery, person) for person in PEOPLE}
        for person in PEOPLE:
            is_served = await gallery.is_served(person, name, BIG)
            assert seen[person] == ([str(name)] if is_served else []), person

    gallery.run(act())


@EACH_ROW
def test_anonymous_viewers_do_not_see_what_only_a_login_was_given(row: str) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        async with downloading(gallery, "alice", PRIVATE):
            is_for_all = await gets_manifest(gallery, "nobody", PRIVATE)
            assert await names(gallery, "nobody") == ([str(PRIVATE)] if is_for_all else [])

    gallery.run(act())


@pytest.mark.parametrize("row", WITH_ACCOUNTS)
def test_with_accounts_only_a_logged_in_viewer_sees_a_download(row: str) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        async with downloading(gallery, "alice", NAME):
            assert await names(gallery, "nobody") == []
            assert await names(gallery, "alice") == [str(NAME)]

    gallery.run(act())


@pytest.mark.parametrize("row", ["7", "8"])
def test_a_second_account_sees_a_download_only_after_the_upstream_gave_it_the_repository(row: str) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        async with downloading(gallery, "alice", PRIVATE):
            assert await names(gallery, "alice") == [str(PRIVATE)]
            assert await names(gallery, "bob") == []
            assert await gets_manifest(gallery, "bob", PRIVATE)
            assert await names(gallery, "bob") == [str(PRIVATE)]

    gallery.run(act())


def test_of_a_repository_that_became_private_only_blobs_that_anonymous_callers_were_given_are_shown() -> None:
    gallery = Gallery("3")

    async def act() -> None:
        assert await gets_manifest(gallery, "nobody", NAME)
        gallery.upstream.public.clear()
        async with downloading(gallery, "alice", NAME):
            assert (await seen_by(gallery, "nobody")).running == 1
            assert await names(gallery, "nobody") == []

    gallery.run(act())


def test_an_account_does_not_see_what_the_rules_deny_to_it() -> None:
    gallery = Gallery("6 service")
    ruled(gallery.service, FOR_ACCOUNTS)

    async def act() -> None:
        async with downloading(gallery, "alice", PRIVATE):
            assert await names(gallery, "alice") == [str(PRIVATE)]
            assert await names(gallery, "bob") == []
            assert (await seen_by(gallery, "bob")).running == 1

    gallery.run(act())


def test_what_the_rules_deny_since_a_reload_is_not_shown_any_longer() -> None:
    gallery = Gallery("2")

    async def act() -> None:
        async with downloading(gallery, "nobody", NAME):
            assert await names(gallery, "nobody") == [str(NAME)]
            ruled(gallery.service, CLOSED)
            for part in (gallery.service.parts.rules, gallery.service.parts.visibility):
                part.reset()
            gallery.service.parts.list_downloads.reset()
            assert await names(gallery, "nobody") == []

    gallery.run(act())


def test_a_download_that_the_upstream_has_not_allowed_yet_is_shown_to_nobody() -> None:
    gallery = Gallery("2")
    answer = asyncio.Event()

    async def hold(_: object) -> None:
        await answer.wait()

    async def act() -> None:
        gallery.upstream.hold = hold
        pull = read(gallery, "nobody", NAME)
        await soon(lambda: len(states(gallery)) == 1)
        assert await names(gallery, "nobody") == []
        gallery.upstream.refuse = lambda _: challenged()
        answer.set()
        with pytest.raises(RegistryError, match="authentication required"):
            await pull
        assert await names(gallery, "nobody") == []

    gallery.run(act())


def test_readers_are_not_counted_for_those_who_may_not_know_of_all_repositories() -> None:
    gallery = Gallery("6 service")
    ruled(gallery.service, FOR_ACCOUNTS)

    async def act() -> None:
        async with downloading(gallery, "alice", PRIVATE):
            joined = read(gallery, "bob", NAME)
            await soon(lambda: sum(state.readers for state in states(gallery)) == 2)
            await soon(lambda: len(states(gallery)[0].repositories) == 2)
            await settled(gallery)
            (of_alice,) = (await seen_by(gallery, "alice")).shown
            (of_bob,) = (await seen_by(gallery, "bob")).shown
            assert (str(of_alice.source.repository), of_alice.readers) == (str(PRIVATE), 2)
            assert (str(of_bob.source.repository), of_bob.readers) == (str(NAME), None)
        assert await joined == BIG

    gallery.run(act())


def test_progress_size_connections_and_readers_are_shown() -> None:
    gallery = Gallery("2")

    async def act() -> None:
        async with downloading(gallery, "nobody", NAME):
            (one,) = (await seen_by(gallery, "nobody")).shown
            assert PIECE <= one.present < len(BIG)
            assert (one.digest, one.total) == (BIG_DIGEST, len(BIG))
            assert (one.connections, one.readers) == (1, 1)
        assert (await seen_by(gallery, "nobody")).running == 0

    gallery.run(act())


def test_a_worker_that_follows_another_one_is_part_of_the_same_download() -> None:
    gallery = Gallery("2")
    parts, reports = gallery.service.parts, dict[int, tuple[float, Activity]]()
    mine, others = (MemoryActivityTable(worker, gallery.service.clock, reports) for worker in (0, 1))
    parts.activity_table.override(providers.Object(mine))

    async def act() -> None:
        async with downloading(gallery, "nobody", NAME):
            (leading,) = states(gallery)
            follows = replace(leading, present=leading.present - 1, started_at=leading.started_at + 1, connections=0)
            others.report(Activity([replace(follows, total=None, speed=None, readers=3)]))
            seen = await seen_by(gallery, "nobody")
            assert seen.running == 1
            assert seen.shown[0].present == leading.present
            assert (seen.shown[0].total, seen.shown[0].connections, seen.shown[0].readers) == (len(BIG), 1, 4)

    gallery.run(act())


def test_only_downloads_from_the_given_upstreams_are_shown() -> None:
    gallery = Gallery("2")

    async def act() -> None:
        async with downloading(gallery, "nobody", NAME):
            gallery.service.parts.activity_table().report(Activity(states(gallery)))
            shown = await gallery.service.parts.list_downloads()(await gallery.viewer("nobody"), ())
            assert (shown.shown, shown.running) == ([], 1)

    gallery.run(act())


def test_at_most_fifty_downloads_are_shown_the_oldest_first() -> None:
    gallery = Gallery("2")

    async def act() -> None:
        async with downloading(gallery, "nobody", NAME):
            (state,) = states(gallery)
            digests = [Digest.of(str(number).encode()) for number in range(60)]
            for digest in digests:
                location = ContentLocation(state.sources[0], ContentKind.BLOB, digest)
                link = Link(location, "", None, frozenset({ANONYMOUS_CLASS}))
                await gallery.service.parts.storage().index.keep_link(link, gallery.service.clock.now())
            many = [replace(state, digest=digest, started_at=float(at)) for at, digest in enumerate(digests)]
            random.Random(3).shuffle(many)  # noqa: S311 - an order that is the same in each run
            parts = gallery.service.parts
            parts.activity_table().report(Activity(many))
            shown = await parts.list_downloads()(await gallery.viewer("nobody"), parts.upstreams().upstreams)
            assert shown.running == 60
            assert [one.digest for one in shown.shown] == digests[:50]

    gallery.run(act())


def test_without_the_page_nothing_is_kept() -> None:
    gallery = Gallery("2", page="off")

    async def act() -> None:
        async with downloading(gallery, "nobody", NAME):
            assert (await seen_by(gallery, "nobody")).running == 0

    gallery.run(act())
