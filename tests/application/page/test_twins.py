"""Every privacy test of the registry API has a twin for the page.

`TWINS` names the twins of each test. A new test in one of MODULES fails `test_every_privacy_test_has_a_twin` until it
has an entry. The twins below are of tests that the other modules of the page have no twin for.
"""

import asyncio
from collections.abc import Callable, Iterable
from types import ModuleType

import pytest

from application.access.access_request import Caller
from application.page.viewer import Viewer
from domain.errors import Denied, RegistryError, Unauthorized
from domain.names import Reference, RepositoryName
from domain.upstreams import Source
from tests.application import test_listings, test_search
from tests.application.access import test_caller_classes, test_equal_refusals, test_provenance
from tests.application.access.test_caller_classes import SECRET, SECRET_DIGEST, Turned, login_of
from tests.application.manifests import test_stale
from tests.application.page import test_recent_pulls, test_visible
from tests.application.page.gallery import Gallery, manifest_of
from tests.application.page.test_recent_pulls import pull, seen_by
from tests.application.page.test_visible import BOTH
from tests.application.support.ruled import CLOSED, ruled
from tests.application.support.service import LAYER, NAME, PRIVATE, REALM, Service
from tests.application.support.watched import ALICES, BIG, BIG_DIGEST, NOBODYS, held, soon
from tests.e2e import test_cache_privacy, test_cache_stale, test_page, test_refusals_everywhere, test_rules
from tests.e2e import test_caller_classes as e2e_caller_classes
from tests.e2e import test_recent_pulls as e2e_recent_pulls
from tests.entrypoints.http.page import test_browse

SOMEONE = Caller(None, REALM, "192.0.2.1")


async def tags(service: Service, name: RepositoryName = NAME) -> list[str]:
    """The tags that a viewer without a login sees in this repository."""
    viewer = await service.parts.identify_viewer()(SOMEONE)
    page = await service.parts.browse_cache().tags(viewer, Source(service.parts.upstream(), name))
    return [str(one.key.tag) for one in page.tags] if page else []


async def shows(service: Service, reference: str, name: RepositoryName = NAME) -> bool:
    """Whether a viewer without a login sees this image."""
    viewer: Viewer = await service.parts.identify_viewer()(SOMEONE)
    source = Source(service.parts.upstream(), name)
    return await service.parts.browse_cache().image(viewer, source, Reference.parse(reference)) is not None


def test_what_a_restarted_mirror_shows_is_what_it_showed_before() -> None:
    turned = Turned()

    async def act() -> None:
        await turned.begin()
        first = turned.service
        await turned.restart()
        for service in (first, turned.service):
            assert await tags(service) == ["1"]
            assert [await shows(service, one) for one in ("1", "secret", str(SECRET_DIGEST))] == [True, False, False]

    turned.run(act())


@pytest.mark.parametrize("refusal", [Denied("no"), None], ids=["403", "401"])
def test_an_item_that_is_refused_to_an_anonymous_caller_is_not_shown_any_more(refusal: RegistryError | None) -> None:
    turned = Turned()
    image = manifest_of(LAYER)
    digest = turned.upstream.put_manifest(str(NAME), "1", image)

    async def act() -> None:
        await pull(turned.service, NOBODYS)
        await turned.service.blob(NOBODYS)
        assert await tags(turned.service) == ["1"]
        turned.service.clock.advance(301)
        if refusal:
            turned.upstream.refuse = lambda fetch: refusal if fetch.resource.path.endswith("/1") else None
        else:
            turned.upstream.public.discard(str(NAME))
        with pytest.raises((Unauthorized, Denied)):
            await turned.service.manifest(NOBODYS)
        # The upstream lets anonymous callers in again, to something else.
        turned.upstream.public.add(str(NAME))
        await turned.service.manifest(NOBODYS, reference=str(digest))
        await turned.service.parts.background().close()
        assert await tags(turned.service) == []
        assert [await shows(turned.service, one) for one in ("1", str(digest))] == [False, True]

    turned.run(act())


def test_what_one_account_is_refused_is_still_shown_to_another() -> None:
    gallery = Gallery("7")

    async def act() -> None:
        await gallery.pull("alice", PRIVATE)
        gallery.upstream.refuse = lambda _: Denied("no")
        assert not await gallery.pull("bob", PRIVATE)
        assert await gallery.names("bob") == []
        assert await gallery.names("alice") == [str(PRIVATE)]

    gallery.run(act())


def test_another_login_of_the_mirror_shows_nothing_of_what_the_one_before_was_given() -> None:
    turned = Turned()
    turned.service = alices = Service(turned.upstream, tag_ttl=60, grant_ttl=300, **login_of("alice"))
    turned.upstream.put_manifest(str(PRIVATE), "secret", SECRET)

    async def act() -> None:
        bobs = Service(
            turned.upstream, alices.clock, alices.parts.storage(), tag_ttl=60, grant_ttl=300, **login_of("bob")
        )
        await alices.warm_up()
        await pull(alices, None, PRIVATE, "secret")
        await bobs.warm_up()
        await pull(bobs, None, PRIVATE)
        for secret in alices.parts.pull_log().newest():  # as if bob's login were of a reload
            bobs.parts.pull_log().add(secret.pull, None, "10.0.0.1", 0.25, 87)
        assert "secret" in await tags(alices, PRIVATE)
        assert await tags(bobs, PRIVATE) == ["1"]
        assert not await shows(bobs, str(SECRET_DIGEST), PRIVATE)
        assert [one.recent.pull.reference for one in await seen_by(bobs)] == ["1"]
        await bobs.parts.background().close()

    alices.run(act())


def test_a_layer_that_alice_is_downloading_is_not_shown_to_others() -> None:
    gallery = Gallery("3")
    gallery.upstream.put_manifest(str(NAME), "1", manifest_of(BIG))

    async def cached() -> list[bool]:
        image = await gallery.image("nobody")
        assert image
        return [part.is_cached or part.used_at is not None or bool(part.others) for part in image.parts]

    async def act() -> None:
        await gallery.pull("nobody")
        gate = held(gallery.upstream)
        download = asyncio.create_task(gallery.service.blob(ALICES, PRIVATE, BIG_DIGEST))
        await soon(lambda: gallery.service.parts.downloads().counts()[0] == 1)
        assert await cached() == [False]
        gate.set()
        assert await download == BIG
        await gallery.service.parts.downloads().finished()
        assert await cached() == [False]

    gallery.run(act())


def test_hidden_repositories_are_no_names_in_links_between_pages() -> None:
    gallery = Gallery("2")

    async def act() -> None:
        for name in BOTH:
            gallery.upstream.public.add(str(name))
            await gallery.pull("nobody", name)
        ruled(gallery.service, CLOSED)
        gallery.service.parts.reset_singletons()
        browse, upstreams = gallery.service.parts.browse_cache(), gallery.service.parts.upstreams().upstreams
        page = await browse.repositories(await gallery.viewer("nobody"), upstreams, limit=1)
        shown = [entry.source for entry in page.entries]
        assert [str(one.repository) for one in shown] == await gallery.names("nobody")
        assert page.following in {None, *shown}
        assert set(await gallery.names("nobody")) < {str(name) for name in BOTH}

    gallery.run(act())


# --- the table ---

Test = Callable[..., object]

MODULES = (test_caller_classes, test_provenance, test_equal_refusals, test_cache_privacy, e2e_caller_classes)
"""Whose tests are all about privacy."""
_OF_EVERY_ROW = (test_visible.test_the_page_shows_what_the_api_would_serve_without_the_upstream,)
_OF_LOGINS = (
    test_visible.test_a_tag_that_only_a_login_was_given_is_hidden_in_a_public_repository,
    test_recent_pulls.test_a_repository_that_became_private_shows_only_what_anonymous_callers_were_given,
)
_OF_OTHER_UPSTREAMS = (test_visible.test_content_of_another_upstream_is_not_shown,)
_OF_RULES = (
    test_visible.test_access_rules_hide_names,
    test_recent_pulls.test_an_account_does_not_see_what_the_access_rules_deny_to_it,
)
_OF_SEARCH = (test_browse.test_a_search_finds_no_repository_that_the_rules_deny,)
_OF_REFUSALS = (
    test_visible.test_a_refusal_of_the_upstream_hides_the_repository,
    test_recent_pulls.test_a_refusal_of_the_upstream_ends_what_is_shown,
)
_OF_THE_BROWSER = (
    test_page.test_private_content_of_alice_is_on_no_page,
    e2e_recent_pulls.test_without_accounts_nobody_sees_what_only_alice_was_given,
)
_ASKS_NOTHING = (test_visible.test_the_page_asks_the_upstream_for_nothing,)

TWINS: dict[Test, tuple[Test, ...]] = {
    # Classes of callers
    test_caller_classes.test_an_anonymous_caller_gets_nothing_that_the_upstream_gave_to_a_login: _OF_LOGINS,
    test_caller_classes.test_after_a_429_for_another_repository_nothing_more_is_given: _OF_LOGINS,
    test_caller_classes.test_a_429_for_the_item_itself_is_passed_on_to_who_was_never_given_it: _OF_LOGINS,
    test_caller_classes.test_a_live_grant_opens_nothing_that_came_into_the_repository_for_others: _OF_LOGINS,
    test_caller_classes.test_the_class_of_an_item_outlives_a_restart: (
        test_what_a_restarted_mirror_shows_is_what_it_showed_before,
    ),
    test_caller_classes.test_a_tag_means_to_anonymous_callers_what_they_were_told: (
        test_visible.test_a_tag_shows_anonymous_viewers_what_anonymous_callers_were_told,
    ),
    test_caller_classes.test_a_personal_caller_gets_what_personal_callers_were_given_while_the_grant_lives: (
        *_OF_EVERY_ROW,
        test_recent_pulls.test_an_account_with_its_own_upstream_login_sees_only_repositories_that_it_was_given,
    ),
    test_caller_classes.test_an_item_that_is_refused_to_an_anonymous_caller_does_not_stand_in_any_more: (
        test_an_item_that_is_refused_to_an_anonymous_caller_is_not_shown_any_more,
    ),
    test_caller_classes.test_what_one_personal_caller_is_refused_stays_readable_to_another: (
        test_what_one_account_is_refused_is_still_shown_to_another,
    ),
    test_caller_classes.test_another_login_of_the_mirror_gets_nothing_of_what_the_one_before_was_given: (
        test_another_login_of_the_mirror_shows_nothing_of_what_the_one_before_was_given,
    ),
    test_caller_classes.test_each_caller_is_of_one_class_and_gets_what_anonymous_callers_get_too: _OF_EVERY_ROW,
    e2e_caller_classes.test_an_upstream_outage_gives_anonymous_callers_no_private_content: _OF_THE_BROWSER,
    e2e_caller_classes.test_a_429_for_another_repository_gives_anonymous_callers_no_private_content: _OF_THE_BROWSER,
    e2e_caller_classes.test_an_invalid_accept_header_gives_anonymous_callers_no_private_content: _OF_THE_BROWSER,
    # Content of another upstream
    test_provenance.test_an_upstream_that_says_yes_to_every_head_opens_no_private_blob: _OF_OTHER_UPSTREAMS,
    test_provenance.test_nor_a_private_manifest_by_tag_or_digest: _OF_OTHER_UPSTREAMS,
    test_provenance.test_nor_does_it_learn_the_size_of_a_private_blob: _OF_OTHER_UPSTREAMS,
    test_provenance.test_another_upstream_that_has_it_is_asked_for_it_once_and_no_second_copy_is_kept: _ASKS_NOTHING,
    test_provenance.test_public_content_is_served_for_every_upstream: _OF_OTHER_UPSTREAMS,
    test_provenance.test_what_the_access_rules_keep_from_others_is_not_public: (*_OF_RULES, *_OF_OTHER_UPSTREAMS),
    test_provenance.test_no_content_that_comes_while_it_is_fetched_elsewhere_is_given_to_the_others_clients: (
        test_a_layer_that_alice_is_downloading_is_not_shown_to_others,
    ),
    test_provenance.test_content_is_no_longer_served_for_anybody_once_it_was_dropped: _OF_OTHER_UPSTREAMS,
    test_provenance.test_an_upstream_that_tells_a_wrong_size_has_no_public_content_removed: _ASKS_NOTHING,
    test_provenance.test_a_file_that_is_shorter_than_the_upstream_says_is_removed_and_fetched_again: _ASKS_NOTHING,
    # The cache
    test_equal_refusals.test_a_refusal_does_not_tell_whether_the_content_is_cached: (
        test_browse.test_a_hidden_image_and_an_absent_one_give_the_same_answer,
    ),
    test_cache_privacy.test_other_callers_are_refused_private_content_that_alice_pulled: (
        *_OF_THE_BROWSER,
        e2e_recent_pulls.test_with_accounts_each_sees_only_what_it_was_given,
        test_page.test_with_accounts_each_account_sees_what_it_may_pull,
    ),
    test_cache_privacy.test_alice_gets_her_cached_content_without_another_fetch: _ASKS_NOTHING,
    test_cache_privacy.test_refusals_of_other_callers_do_not_affect_alice: (
        test_what_one_account_is_refused_is_still_shown_to_another,
    ),
    test_cache_privacy.test_a_cached_digest_is_refused_in_a_repository_that_does_not_contain_it: (
        test_visible.test_a_layer_of_a_private_image_is_not_shown_as_cached_in_a_public_one,
        test_visible.test_the_last_use_of_a_layer_is_hidden_if_a_private_image_has_it_too,
    ),
    test_cache_privacy.test_referrers_are_fetched_from_the_upstream_for_each_caller: _ASKS_NOTHING,
    test_cache_privacy.test_other_callers_cannot_join_the_fill_that_alice_started: (
        test_a_layer_that_alice_is_downloading_is_not_shown_to_others,
    ),
    # Outages
    test_stale.test_private_content_is_served_only_while_the_grant_is_live: _OF_EVERY_ROW,
    test_stale.test_private_content_is_not_served_after_its_token_has_ended: (
        test_visible.test_an_account_that_the_upstream_refuses_sees_nothing,
        *_OF_EVERY_ROW,
    ),
    test_stale.test_a_429_extends_no_grant: _ASKS_NOTHING,
    test_cache_stale.test_without_the_upstream_private_content_is_refused_when_its_grant_expires: _OF_EVERY_ROW,
    test_cache_stale.test_stale_content_is_refused_after_stale_ttl: _OF_EVERY_ROW,
    test_cache_stale.test_cached_content_that_the_upstream_refuses_to_anonymous_callers_is_refused_at_once: (
        _OF_REFUSALS
    ),
    test_refusals_everywhere.test_a_refusal_holds_at_all_workers_within_five_seconds: _OF_REFUSALS,
    # Access rules
    test_rules.test_every_request_for_a_forbidden_repository_is_denied: _OF_RULES,
    test_rules.test_the_catalog_omits_forbidden_repositories: _OF_RULES,
    test_listings.test_catalog_leaves_out_what_this_caller_may_not_pull: _OF_RULES,
    test_listings.test_link_of_the_catalog_tells_no_name_that_is_left_out: (
        test_hidden_repositories_are_no_names_in_links_between_pages,
    ),
    test_search.test_what_the_caller_may_not_pull_is_not_found: _OF_SEARCH,
    test_search.test_official_image_that_is_forbidden_is_not_found: _OF_SEARCH,
}


def _tests_of(module: ModuleType) -> Iterable[Test]:
    return (one for name, one in vars(module).items() if name.startswith("test_") and one.__module__ == module.__name__)


def test_every_privacy_test_has_a_twin() -> None:
    missing = [one.__qualname__ for module in MODULES for one in _tests_of(module) if not TWINS.get(one)]
    assert missing == []


def test_twins_are_tests_of_the_page() -> None:
    places = {one.__module__ for twins in TWINS.values() for one in twins}
    assert all("page" in place or place.endswith(".test_recent_pulls") for place in places)
