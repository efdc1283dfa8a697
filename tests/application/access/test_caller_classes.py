"""What an upstream gave to callers of one class is not given to those of another while it cannot be asked."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from application.access.access_request import Caller
from application.blobs.blob_query import BlobQuery
from application.ports.upstream import UpstreamRequest
from domain.authorization import parse_authorization
from domain.digest import Digest
from domain.errors import Denied, RegistryError, Unauthorized, UpstreamFault, UpstreamThrottled, UpstreamUnreachable
from domain.names import RepositoryName
from domain.records import (
    ANONYMOUS_CALLER,
    ANONYMOUS_CLASS,
    PERSONAL_CLASS,
    CallerId,
    class_of,
    classes_for,
    mirror_caller,
)
from tests.application.manifests.test_stale import EACH
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, LAYER, LAYER_DIGEST, NAME, REALM, Service
from tests.application.support.throttling import OTHER, Throttling, throttled
from tests.application.support.watched import ALICES, BOBS, NOBODYS

SECRET = b'{"schemaVersion":2,"layers":[],"annotations":{"secret":"yes"}}'
SECRET_DIGEST = Digest.of(SECRET)
SECRET_LAYER = b"a layer that only its owner may read" * 30
SECRET_LAYER_DIGEST = Digest.of(SECRET_LAYER)
NEWER = b'{"schemaVersion":2,"layers":[],"annotations":{"secret":"a newer one"}}'
PAST_GRANTS = pytest.mark.parametrize("seconds", [0, 61, 301])


class Turned(Throttling):
    """An anonymous caller pulled `1`; then the repository became private, and alice pulled `secret` from it."""

    async def begin(self) -> None:
        await self.read_public()
        self.upstream.public.discard(str(NAME))
        self.upstream.put_manifest(str(NAME), "secret", SECRET)
        self.upstream.put_blob(str(NAME), SECRET_LAYER)
        for reference in ("secret", str(SECRET_DIGEST)):
            assert (await self.pull(ALICES, name=NAME, reference=reference)).content == SECRET
        assert await self.service.blob(ALICES, name=NAME, digest=SECRET_LAYER_DIGEST) == SECRET_LAYER
        self.asked()

    async def restart(self) -> None:
        """The service is another one with the same storage."""
        await self.service.parts.background().close()
        self.service = Service(
            self.upstream, self.service.clock, self.service.parts.storage(), tag_ttl=60, grant_ttl=300
        )
        await self.service.warm_up()
        await self.login()

    async def read_public(self, header: str = NOBODYS) -> None:
        for reference in ("1", str(IMAGE_DIGEST)):
            assert (await self.pull(header, name=NAME, reference=reference)).content == IMAGE_CONTENT
        assert await self.service.blob(header) == LAYER

    async def refused_secrets(self, header: str = NOBODYS, error: type[RegistryError] = UpstreamFault) -> None:
        for reference in ("secret", str(SECRET_DIGEST)):
            for head in (False, True):
                with pytest.raises(error):
                    await self.pull(header, name=NAME, reference=reference, head=head)
        for query in ({}, {"head": True}, {"known": True}):
            with pytest.raises(error):
                await self.blob(header, **query)

    async def blob(self, header: str, **query: Any) -> None:
        caller = Caller(parse_authorization(header), REALM)
        async with self.service.parts.pull_blob().open(caller, BlobQuery(NAME, SECRET_LAYER_DIGEST, **query)):
            pass


@EACH
@PAST_GRANTS
def test_an_anonymous_caller_gets_nothing_that_the_upstream_gave_to_a_login(
    outage: RegistryError, seconds: int
) -> None:
    turned = Turned()

    async def act() -> None:
        await turned.begin()
        turned.upstream.refuse = lambda _: outage
        turned.service.clock.advance(seconds)
        await turned.refused_secrets()
        await turned.read_public()

    turned.run(act())


@PAST_GRANTS
def test_after_a_429_for_another_repository_nothing_more_is_given(seconds: int) -> None:
    turned = Turned()

    async def act() -> None:
        await turned.begin()

        def refuse(fetch: UpstreamRequest) -> RegistryError | None:
            name = fetch.resource.scope.name
            return throttled("60") if name == str(OTHER["name"]) else None

        turned.upstream.refuse = refuse
        turned.service.clock.advance(seconds)
        await turned.refused()
        await turned.refused_secrets(error=RegistryError)

    turned.run(act())


def test_a_429_for_the_item_itself_is_passed_on_to_who_was_never_given_it() -> None:
    turned = Turned()

    async def act() -> None:
        await turned.begin()
        turned.upstream.refuse = lambda _: throttled("60")
        await turned.refused_secrets(error=UpstreamThrottled)

    turned.run(act())


def test_a_live_grant_opens_nothing_that_came_into_the_repository_for_others() -> None:
    turned = Turned()

    async def act() -> None:
        await turned.begin()
        await turned.refused_secrets(error=Unauthorized)

    turned.run(act())


@EACH
def test_the_class_of_an_item_outlives_a_restart(outage: RegistryError) -> None:
    turned = Turned()

    async def act() -> None:
        await turned.begin()
        await turned.restart()
        turned.upstream.refuse = lambda _: outage
        await turned.refused_secrets()
        await turned.read_public()

    turned.run(act())


@EACH
def test_a_tag_means_to_anonymous_callers_what_they_were_told(outage: RegistryError) -> None:
    turned = Turned()

    async def act() -> None:
        await turned.begin()
        turned.upstream.put_manifest(str(NAME), "1", NEWER)
        turned.service.clock.advance(61)
        assert (await turned.pull(ALICES, name=NAME)).content == NEWER
        turned.upstream.refuse = lambda _: outage
        assert (await turned.pull(NOBODYS, name=NAME)).content == IMAGE_CONTENT
        assert (await turned.pull(ALICES, name=NAME)).content == NEWER
        turned.service.clock.advance(240)  # alice's grant ends; what is left to her is everybody's
        assert (await turned.pull(ALICES, name=NAME)).content == IMAGE_CONTENT

    turned.run(act())


@EACH
def test_a_personal_caller_gets_what_personal_callers_were_given_while_the_grant_lives(outage: RegistryError) -> None:
    turned = Turned()

    async def act() -> None:
        await turned.begin()
        turned.upstream.refuse = lambda _: outage
        assert (await turned.pull(ALICES, name=NAME, reference="secret")).content == SECRET
        await turned.refused_secrets(BOBS)
        await turned.read_public(BOBS)
        turned.service.clock.advance(301)
        await turned.refused_secrets(ALICES)
        await turned.read_public(ALICES)

    turned.run(act())


@pytest.mark.parametrize("refusal", [Denied("no"), None], ids=["403", "401"])
def test_an_item_that_is_refused_to_an_anonymous_caller_does_not_stand_in_any_more(
    refusal: RegistryError | None,
) -> None:
    turned = Turned()

    async def act() -> None:
        await turned.read_public()
        turned.service.clock.advance(301)

        def refuse(fetch: UpstreamRequest) -> RegistryError | None:
            return refusal if fetch.resource.path.endswith((str(LAYER_DIGEST), "/1")) else None

        if refusal:
            turned.upstream.refuse = refuse
        else:
            turned.upstream.public.discard(str(NAME))
        for ask in (lambda: turned.pull(NOBODYS, name=NAME), lambda: turned.service.blob(NOBODYS)):
            await _refused(ask)
        # The upstream lets anonymous callers in again, to something else.
        turned.upstream.public.add(str(NAME))
        assert (await turned.pull(NOBODYS, name=NAME, reference=str(IMAGE_DIGEST))).content == IMAGE_CONTENT
        turned.upstream.refuse = lambda _: UpstreamUnreachable("gone")
        for ask in (lambda: turned.pull(NOBODYS, name=NAME), lambda: turned.service.blob(NOBODYS)):
            with pytest.raises(UpstreamUnreachable):
                await ask()

    turned.run(act())


async def _refused(ask: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises((Unauthorized, Denied)):
        await ask()


def test_what_one_personal_caller_is_refused_stays_readable_to_another() -> None:
    pulls = Pulls()

    async def act() -> None:
        await pulls.service.blob(ALICES, name=RepositoryName("private/app"))
        pulls.upstream.refuse = lambda _: Denied("no")
        with pytest.raises(Denied):
            await pulls.service.blob(BOBS, name=RepositoryName("private/app"))
        pulls.asked()
        assert await pulls.service.blob(ALICES, name=RepositoryName("private/app")) == LAYER
        assert pulls.asked() == []

    pulls.run(act())


def test_another_login_of_the_mirror_gets_nothing_of_what_the_one_before_was_given() -> None:
    turned = Turned()
    turned.service = Service(turned.upstream, tag_ttl=60, grant_ttl=300, **login_of("alice"))
    repository = RepositoryName("private/app")
    turned.upstream.put_manifest(str(repository), "secret", SECRET)

    async def act() -> None:
        alices, clock = turned.service, turned.service.clock
        bobs = Service(turned.upstream, clock, alices.parts.storage(), tag_ttl=60, grant_ttl=300, **login_of("bob"))
        await alices.warm_up()
        assert (await alices.manifest(name=repository, reference="secret")).content == SECRET
        await bobs.warm_up()
        assert (await bobs.manifest(name=repository)).content == IMAGE_CONTENT
        turned.upstream.refuse = lambda _: UpstreamUnreachable("gone")
        clock.advance(301)
        assert (await alices.manifest(name=repository, reference="secret")).content == SECRET, (
            "callers share this login"
        )
        assert (await bobs.manifest(name=repository)).content == IMAGE_CONTENT
        for reference in ("secret", str(SECRET_DIGEST)):
            with pytest.raises(UpstreamFault):
                await bobs.manifest(name=repository, reference=reference)
        await bobs.parts.background().close()

    turned.service.run(act())


def login_of(name: str) -> dict[str, object]:
    return {"upstream_username": name, "upstream_password": "right", "allow_everyone": True}


def test_each_caller_is_of_one_class_and_gets_what_anonymous_callers_get_too() -> None:
    personal, mirror = CallerId("login 1"), mirror_caller("1")
    assert class_of(ANONYMOUS_CALLER) == ANONYMOUS_CLASS
    assert class_of(personal) == class_of(CallerId("token 1")) == PERSONAL_CLASS
    assert class_of(mirror) != class_of(mirror_caller("2"))
    assert classes_for(ANONYMOUS_CALLER) == {ANONYMOUS_CLASS}
    assert classes_for(personal) == {PERSONAL_CLASS, ANONYMOUS_CLASS}
    assert classes_for(mirror) == {class_of(mirror), ANONYMOUS_CLASS}
