"""The page shows a viewer what the registry API would give to the same caller, in every row of the trust table."""

from itertools import product

import pytest

from application.access.access_request import Caller
from application.page.browse_cache import ImageDetails
from application.page.viewer import Viewer
from domain.access import Credentials
from domain.authorization import parse_authorization
from domain.digest import Digest
from domain.errors import CredentialsRejected, Denied
from domain.names import Reference, RepositoryName
from tests.application.page.gallery import (
    CONFIG,
    LOGINS,
    PEOPLE,
    PRIVATE_IMAGE,
    PUBLIC_IMAGE,
    SECRET,
    SHARED,
    Gallery,
    manifest_of,
)
from tests.application.support.ruled import CLOSED, FOR_ACCOUNTS, ruled
from tests.application.support.service import NAME, PRIVATE, basic
from tests.application.support.trust_table import ROWS
from tests.application.support.watched import ALICES

EACH_ROW = pytest.mark.parametrize("row", ROWS)
LATER = pytest.mark.parametrize("seconds", [0, 301, 90_000])
BOTH = (NAME, PRIVATE)


async def assert_same(gallery: Gallery, person: str, name: RepositoryName) -> bool:
    """The page and the API agree on the image. Returns whether they give it."""
    image, is_served = await gallery.image(person, name), await gallery.is_served(person, name)
    what = f"{name} for {person}"
    assert (image is not None) == is_served, what
    assert (str(name) in await gallery.names(person)) == is_served, what
    assert await gallery.tags(person, name) == (["1"] if is_served else None), what
    if image:
        for part in image.parts:
            blob = SHARED if part.entry.digest == Digest.of(SHARED) else SECRET
            assert part.is_cached == await gallery.is_served(person, name, blob), f"a layer of {what}"
        assert (image.configuration is not None) == await gallery.is_served(person, name, CONFIG)
    return is_served


@EACH_ROW
@LATER
@pytest.mark.parametrize("puller", PEOPLE)
def test_the_page_shows_what_the_api_would_serve_without_the_upstream(row: str, puller: str, seconds: float) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        await gallery.pull(puller, NAME, SHARED, CONFIG)
        await gallery.pull(puller, PRIVATE, SECRET)
        gallery.service.clock.advance(seconds)
        for person in PEOPLE:
            for name in BOTH:
                await assert_same(gallery, person, name)

    gallery.run(act())


@EACH_ROW
def test_without_accounts_a_viewer_sees_only_what_anonymous_callers_were_given(row: str) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        for person in ("alice", "bob"):
            await gallery.pull(person, PRIVATE, SHARED, SECRET, CONFIG)
        was_pulled = await gallery.pull("nobody", PRIVATE)
        assert await gallery.names("nobody") == ([str(PRIVATE)] if was_pulled else [])

    gallery.run(act())


@pytest.mark.parametrize("row", [row for row, (_, _, _, has_accounts, _) in ROWS.items() if has_accounts])
def test_with_accounts_nothing_is_shown_without_a_login(row: str) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        pulled = [str(name) for name in BOTH if await gallery.pull("alice", name, SHARED, CONFIG)]
        assert await gallery.names("alice") == sorted(pulled) != []
        assert await gallery.names("nobody") == []
        assert await gallery.image("nobody") is None
        assert await gallery.tags("nobody") is None

    gallery.run(act())


@pytest.mark.parametrize("row", ["7", "8"])
def test_an_account_does_not_see_what_another_account_was_given(row: str) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        await gallery.pull("alice", PRIVATE, SHARED, SECRET, CONFIG)
        assert await gallery.names("bob") == []
        assert await gallery.image("bob", PRIVATE) is None
        await gallery.pull("bob", PRIVATE)
        assert await gallery.names("bob") == [str(PRIVATE)]

    gallery.run(act())


@pytest.mark.parametrize("row", ["7", "8"])
def test_an_account_that_the_upstream_refuses_sees_nothing(row: str) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        await gallery.pull("alice", PRIVATE, SHARED)
        await gallery.pull("bob", PRIVATE)
        gallery.upstream.users.pop("bob")
        gallery.service.clock.advance(301)
        assert await gallery.names("bob") == []

    gallery.run(act())


@EACH_ROW
def test_access_rules_hide_names(row: str) -> None:
    gallery = Gallery(row)
    rules = FOR_ACCOUNTS if gallery.has_accounts else CLOSED

    async def act() -> None:
        for person in PEOPLE:
            for name in BOTH:
                await gallery.pull(person, name, SHARED)
        ruled(gallery.service, rules)
        gallery.service.parts.reset_singletons()
        for person in PEOPLE:
            shown = await gallery.names(person)
            for name in BOTH:
                account = person if gallery.has_accounts and person in LOGINS else ""
                if not rules.may_pull(account, gallery.source(name)):
                    assert str(name) not in shown
                    assert await gallery.image(person, name) is None
                    assert await gallery.tags(person, name) is None

    gallery.run(act())


def test_a_refusal_of_the_upstream_hides_the_repository() -> None:
    gallery = Gallery("3")

    async def act() -> None:
        await gallery.pull("nobody", NAME, SHARED)
        assert await gallery.names("nobody") == [str(NAME)]
        gallery.upstream.refuse = lambda _: Denied("no longer")
        gallery.service.clock.advance(301)
        assert not await gallery.pull("nobody")
        assert await gallery.names("nobody") == []
        assert await gallery.image("nobody") is None

    gallery.run(act())


def test_a_layer_of_a_private_image_is_not_shown_as_cached_in_a_public_one() -> None:
    gallery = Gallery("3")

    async def act() -> None:
        await gallery.pull("alice", PRIVATE, SHARED, SECRET)
        await gallery.pull("nobody", NAME)
        image = await gallery.image("nobody")
        assert image
        assert [part.is_cached for part in image.parts] == [False]
        assert [part.used_at for part in image.parts] == [None]
        assert [part.others for part in image.parts] == [()]

    gallery.run(act())


def test_the_last_use_of_a_layer_is_hidden_if_a_private_image_has_it_too() -> None:
    gallery = Gallery("3")

    async def act() -> None:
        await gallery.pull("nobody", NAME, SHARED)
        before = await gallery.image("nobody")
        assert before
        assert [part.used_at for part in before.parts] == [gallery.service.clock.now()]
        await gallery.pull("alice", PRIVATE, SHARED)
        after = await gallery.image("nobody")
        assert after
        assert [(part.is_cached, part.used_at, part.others) for part in after.parts] == [(True, None, ())]

    gallery.run(act())


def test_images_that_share_a_layer_are_named_to_who_may_know_of_them() -> None:
    gallery = Gallery("6 service")

    async def act() -> None:
        for name in BOTH:
            await gallery.pull("alice", name, SHARED)
        image = await gallery.image("alice")
        assert image
        assert [part.others for part in image.parts] == [(gallery.source(PRIVATE),)]
        assert image.parts[0].used_at is not None

    gallery.run(act())


def test_the_page_asks_the_upstream_for_nothing() -> None:
    gallery = Gallery("3")

    async def act() -> None:
        await gallery.pull("nobody", NAME, SHARED, CONFIG)
        gallery.upstream.asked.clear()
        gallery.upstream.relayed.clear()
        await gallery.names("nobody")
        await gallery.image("nobody")
        await gallery.image("nobody", PRIVATE)
        assert (gallery.upstream.asked, gallery.upstream.relayed) == ([], [])

    gallery.run(act())


def test_looking_at_an_image_does_not_count_as_use() -> None:
    gallery = Gallery("3")

    async def act() -> None:
        await gallery.pull("nobody", NAME, SHARED, CONFIG)
        used = await gallery.service.parts.storage().usage.all()
        gallery.service.clock.advance(100)
        await gallery.image("nobody")
        await gallery.service.parts.eviction().flush()
        assert await gallery.service.parts.storage().usage.all() == used

    gallery.run(act())


@pytest.mark.parametrize("login", [Credentials("alice", "wrong"), Credentials("carol", "right"), Credentials("", "")])
def test_a_wrong_login_is_refused_and_not_shown_as_anonymous(login: Credentials) -> None:
    gallery = Gallery("6 anonymous")

    async def act() -> None:
        caller = Caller(parse_authorization(basic(login)), "", "192.0.2.1")
        with pytest.raises(CredentialsRejected):
            await gallery.service.parts.identify_viewer()(caller)

    gallery.run(act())


def test_a_tag_that_only_a_login_was_given_is_hidden_in_a_public_repository() -> None:
    gallery = Gallery("3")
    secret = manifest_of(SECRET)

    async def act() -> None:
        await gallery.pull("nobody", NAME, SHARED, CONFIG)
        gallery.upstream.public.discard(str(NAME))
        digest = str(gallery.upstream.put_manifest(str(NAME), "secret", secret))
        for reference in ("secret", digest):
            await gallery.service.manifest(ALICES, NAME, reference)
        await gallery.service.parts.background().close()
        assert await gallery.tags("nobody") == ["1"]
        assert await gallery.image("nobody") is not None
        for reference in ("secret", digest):
            assert await gallery.image("nobody", NAME, reference) is None

    gallery.run(act())


def test_a_tag_shows_anonymous_viewers_what_anonymous_callers_were_told() -> None:
    gallery = Gallery("3")
    newer = manifest_of(SHARED, annotations={"secret": "yes"})

    async def act() -> None:
        await gallery.pull("nobody", NAME, SHARED)
        gallery.upstream.put_manifest(str(NAME), "1", newer)
        gallery.service.clock.advance(61)
        await gallery.service.manifest(ALICES, NAME)
        await gallery.service.parts.background().close()
        image = await gallery.image("nobody")
        assert image
        assert image.digest == Digest.of(PUBLIC_IMAGE)

    gallery.run(act())


def test_content_of_another_upstream_is_not_shown() -> None:
    """As if another upstream had sent the content, and this one had only confirmed by HEAD that it has it."""
    gallery = Gallery("6 service")
    parts = gallery.service.parts

    async def act() -> None:
        await gallery.pull("alice", PRIVATE, SHARED, SECRET, CONFIG)

        async def after(*forgotten: bytes) -> ImageDetails:
            for content in forgotten:
                parts.storage().index.sent.pop((Digest.of(content), parts.upstream().url))
            parts.reset_singletons()
            image = await gallery.image("alice", PRIVATE)
            assert image
            return image

        assert [part.is_cached for part in (await after()).parts] == [True, True]
        assert [part.is_cached for part in (await after(SECRET)).parts] == [True, False]
        assert (await after(CONFIG)).configuration is None
        assert (await after(PRIVATE_IMAGE)).manifest is None

    gallery.run(act())


@EACH_ROW
def test_an_operator_sees_what_any_caller_was_given_and_asks_no_upstream(row: str) -> None:
    gallery = Gallery(row)
    operator = Viewer(Caller(None, "", "192.0.2.1"), "olga", is_operator=True)

    async def act() -> None:
        given = {name for person in PEOPLE for name in BOTH if await gallery.pull(person, name, SHARED)}
        assert given
        gallery.service.clock.advance(90_000)
        gallery.upstream.asked.clear()
        browse = gallery.service.parts.browse_cache()
        page = await browse.repositories(operator, gallery.service.parts.upstreams().upstreams)
        assert {entry.source.repository for entry in page.entries} == given
        for name in given:
            image = await browse.image(operator, gallery.source(name), Reference.parse("1"))
            assert image
            assert image.parts[0].is_cached
        assert gallery.upstream.asked == []

    gallery.run(act())


@EACH_ROW
def test_only_an_operator_sees_what_is_pinned(row: str) -> None:
    gallery = Gallery(row)
    operator = Viewer(Caller(None, "", "192.0.2.1"), "olga", is_operator=True)

    async def act() -> None:
        given = {name for person in PEOPLE for name in BOTH if await gallery.pull(person, name)}
        pins, browse = gallery.service.parts.pinned_images(), gallery.service.parts.browse_cache()
        for name in given:
            image = await pins.pin(gallery.source(name), Reference.parse("1"))
            await pins.pin(gallery.source(name), Reference(image.digest))
        viewers = [await gallery.viewer(person) for person in PEOPLE]
        for viewer, name in product((*viewers, operator), given):
            tags = await browse.tags(viewer, gallery.source(name))
            if tags is None:
                continue
            image = await browse.image(viewer, gallery.source(name), Reference.parse("1"))
            by_digest = await browse.image(viewer, gallery.source(name), Reference(image.digest))
            shown = [image.is_pinned, by_digest.is_pinned, bool(tags.pinned)]
            assert shown == [viewer is operator] * 3, f"{name} for {viewer.account or 'nobody'}"

    gallery.run(act())


def test_pins_that_cannot_be_read_hide_no_image() -> None:
    gallery = Gallery("2")
    operator = Viewer(Caller(None, "", "192.0.2.1"), "olga", is_operator=True)

    async def act() -> None:
        await gallery.pull("nobody")
        gallery.service.parts.pins().is_broken = True
        image = await gallery.service.parts.browse_cache().image(operator, gallery.source(), Reference.parse("1"))
        assert image
        assert not image.is_pinned

    gallery.run(act())
