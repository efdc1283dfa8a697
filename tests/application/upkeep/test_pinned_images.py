"""Pinned images: what is protected, fetched and reported, whatever the upstream does."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from application.access.access_request import Caller
from application.ports.content import StorageFailed
from application.upkeep.pinned_images import PinState
from application.upkeep.warm import Image
from domain.digest import Digest
from domain.errors import UpstreamUnreachable
from domain.events import PinCheckFailed, PinMoved, PinsMeasured, PinsTooLarge
from domain.manifests import INDEX_MEDIA_TYPE
from domain.names import Reference, RepositoryName, Tag
from domain.pins import Pin
from domain.upstreams import Source
from tests.application.support.service import NAME, PRIVATE, REALM, Service
from tests.application.support.watched import watched
from tests.application.upkeep.test_warm import AMD, ARM7, ARM8, INDEX, LAYERS, digests, entry
from tests.fakes.parts import memory_storage

FRESH = b"fresh" * 500
NEW = json.dumps({"schemaVersion": 2, "config": entry(LAYERS["config"]), "layers": [entry(FRESH)]}).encode()


BIG = b"big" * 50_000
BIG_IMAGE = json.dumps({"schemaVersion": 2, "layers": [entry(BIG)]}).encode()


def index_of(*images: tuple[bytes, str]) -> bytes:
    """Of images for linux, each with its architecture."""
    found = [entry(content, platform={"os": "linux", "architecture": name}) for content, name in images]
    return json.dumps({"schemaVersion": 2, "manifests": found}).encode()


NEW_INDEX = index_of((NEW, "amd64"))
ALL = digests(INDEX, AMD, ARM7, ARM8, *LAYERS)
ONLY_AMD = digests(INDEX, AMD, "config", "common", "amd")
ALL_NEW = digests(NEW_INDEX, NEW, "config") | {Digest.of(FRESH)}
HOUR, RETRY = 3600.0, 300.0


class Pinned:
    """A mirror whose upstream has the image `multi` of three platforms, and its upkeep."""

    def __init__(self, scheme: str = "none", **settings: Any) -> None:
        self.upstream = watched(scheme)
        for name in (str(NAME), str(PRIVATE)):
            self.move(INDEX, name)
            for content in (AMD, ARM7, ARM8, NEW):
                self.upstream.put_manifest(name, "part", content)
            for layer in (*LAYERS.values(), FRESH):
                self.upstream.put_blob(name, layer)
        self.storage = memory_storage()
        self.service = Service(self.upstream, storage=self.storage, **settings)

    def move(self, index: bytes, name: str = str(NAME)) -> None:
        """The tag names this index from now on."""
        self.upstream.put_manifest(name, "multi", index, INDEX_MEDIA_TYPE)

    def source(self, name: RepositoryName = NAME) -> Source:
        return Source(self.service.parts.upstream(), name)

    def pin(
        self, reference: str = "multi", platforms: Sequence[str] | None = (), *, name: RepositoryName = NAME
    ) -> None:
        self.service.run(
            self.service.parts.pinned_images().pin(self.source(name), Reference.parse(reference), platforms)
        )

    def unpin(self, reference: str = "multi") -> bool:
        return bool(self.service.run(self.service.parts.pinned_images().unpin(self.key(reference))))

    def key(self, reference: str) -> Pin:
        return Pin(self.service.parts.upstream().url, NAME, Reference.parse(reference))

    def look(self, after: float = 0.0) -> None:
        """The upkeep looks, some seconds later."""
        self.service.clock.advance(after)
        self.service.run(self.service.parts.pinned_images().look_after())

    def pull(self, *platforms: str) -> None:
        """A client pulls the image."""

        async def act() -> None:
            caller, wanted = Caller(None, REALM), Image(NAME, Reference.parse("multi"), platforms)
            async for _ in self.service.parts.warm_cache()(caller, wanted):
                pass

        self.service.run(act())

    @property
    def state(self) -> PinState:
        (state,) = self.service.run(self.service.parts.pinned_images().states())
        return state  # type: ignore[no-any-return]

    @property
    def protected(self) -> set[Digest]:
        return set(self.state.image.tree)

    @property
    def stored(self) -> set[Digest]:
        return set(self.service.parts.store().content)

    @property
    def due_in(self) -> float:
        return self.state.image.due_at - self.service.clock.now()

    def events(self, kind: type) -> list[Any]:
        return [event for event in self.service.events if isinstance(event, kind)]


# --- what is fetched and protected ---


def test_a_pinned_image_is_fetched_without_a_client() -> None:
    pinned = Pinned()
    pinned.pin()
    assert not pinned.state.is_complete
    pinned.look()
    assert pinned.stored == pinned.protected == ALL
    state = pinned.state
    assert (state.is_complete, state.image.digest, state.image.problem) == (True, Digest.of(INDEX), "")
    assert state.held == state.image.size == sum(map(len, (INDEX, AMD, ARM7, ARM8, *LAYERS.values())))
    assert (state.image.checked_at, pinned.due_in) == (pinned.service.clock.now(), HOUR)


def test_only_the_wanted_platforms_are_fetched_and_protected() -> None:
    pinned = Pinned()
    pinned.pin(platforms=("linux/amd64",))
    pinned.look()
    assert pinned.stored == pinned.protected == ONLY_AMD
    assert pinned.state.is_complete


def test_the_platforms_that_are_cached_are_pinned_if_none_is_named() -> None:
    pinned = Pinned()
    pinned.pull("linux/amd64")
    pinned.pin(platforms=None)
    assert pinned.state.image.pin.platforms == ("linux/amd64",)
    assert pinned.protected == ONLY_AMD, "it is protected before the first check"
    assert pinned.state.is_complete


@pytest.mark.parametrize("is_cached", [True, False])
def test_all_platforms_are_pinned_if_all_or_none_are_cached(*, is_cached: bool) -> None:
    pinned = Pinned()
    if is_cached:
        pinned.pull()
    pinned.pin(platforms=None)
    assert pinned.state.image.pin.platforms == ()


def test_a_pin_names_its_image_by_digest() -> None:
    pinned = Pinned()
    pinned.pin(str(Digest.of(AMD)))
    pinned.look()
    assert pinned.stored == pinned.protected == digests(AMD, "config", "common", "amd")


def test_a_complete_image_is_not_read_again() -> None:
    pinned = Pinned()
    pinned.pin()
    pinned.look()
    pinned.upstream.asked.clear()
    pinned.look(HOUR - 1)
    assert pinned.upstream.asked == [], "it is not due"
    pinned.look(1)
    assert [fetch.head for fetch in pinned.upstream.asked] == [True], "one HEAD, which does not count as a pull"
    assert pinned.due_in == HOUR


def test_content_that_is_gone_is_fetched_again() -> None:
    pinned = Pinned()
    pinned.pin()
    pinned.look()
    pinned.service.run(pinned.service.parts.eviction().drop(Digest.of(LAYERS["amd"])))
    assert not pinned.state.is_complete
    pinned.look(HOUR)
    assert pinned.state.is_complete


def test_the_settings_have_the_time_between_checks() -> None:
    pinned = Pinned(pin_check_interval=60)
    pinned.pin()
    pinned.look()
    assert pinned.due_in == 60


def test_a_check_waits_for_the_command_that_fetches_the_image() -> None:
    pinned = Pinned()
    pinning = pinned.service.parts.pinned_images().pin(pinned.source(), Reference.parse("multi"), (), delay=60)
    pinned.service.run(pinning)
    pinned.look()
    assert pinned.stored == set()
    pinned.look(60)
    assert pinned.state.is_complete


def test_one_worker_makes_the_checks() -> None:
    pinned = Pinned()
    pinned.pin()
    other: Any = pinned.storage.pins
    assert pinned.service.run(other.of_another_worker().lead(60))
    pinned.look()
    assert pinned.stored == set()


# --- a tag that moves ---


def test_a_moved_tag_is_fetched_and_the_old_content_is_not_protected_any_more() -> None:
    pinned = Pinned()
    pinned.pin()
    pinned.look()
    pinned.move(NEW_INDEX)
    pinned.look(HOUR)
    assert pinned.protected == ALL_NEW <= pinned.stored
    assert (pinned.state.image.digest, pinned.state.is_complete) == (Digest.of(NEW_INDEX), True)
    assert [event.digest for event in pinned.events(PinMoved)] == [str(Digest.of(NEW_INDEX))]


def test_old_and_new_content_are_protected_until_the_new_is_fetched() -> None:
    pinned = Pinned()
    pinned.pin()
    pinned.look()
    pinned.move(NEW_INDEX)
    pinned.upstream.refuse = lambda fetch: UpstreamUnreachable("gone") if "/blobs/" in fetch.resource.path else None
    pinned.look(HOUR)
    assert pinned.protected == ALL | ALL_NEW
    assert (pinned.state.image.digest, pinned.state.image.problem) == (Digest.of(INDEX), "gone")
    assert pinned.due_in == RETRY
    pinned.upstream.refuse = lambda _: None
    pinned.look(RETRY)
    assert pinned.protected == ALL_NEW
    assert pinned.state.image.problem == ""


def test_content_that_was_never_fetched_is_not_protected_for_ever() -> None:
    """The tag moves again and again, and each time its layers cannot be fetched."""
    pinned = Pinned()
    pinned.pin()
    pinned.look()
    pinned.upstream.refuse = lambda fetch: UpstreamUnreachable("gone") if "/blobs/" in fetch.resource.path else None
    for architecture in ("s390x", "riscv64", "amd64"):
        pinned.move(index_of((NEW, architecture)))
        pinned.look(HOUR)
    assert pinned.protected == ALL | ALL_NEW


def test_an_image_that_was_never_fetched_whole_protects_only_the_content_of_its_tag() -> None:
    pinned = Pinned()
    pinned.upstream.refuse = lambda fetch: UpstreamUnreachable("gone") if "/blobs/" in fetch.resource.path else None
    pinned.pin()
    pinned.look()
    assert (pinned.protected, pinned.state.image.digest) == (ALL, None)
    pinned.move(NEW_INDEX)
    pinned.look(HOUR)
    assert pinned.protected == ALL_NEW


def test_content_that_cannot_be_stored_is_fetched_again_soon_only_once() -> None:
    """There was no space for it beside the old content, or there is none at all."""
    pinned = Pinned()
    disk: Any = pinned.storage.store
    disk.disk.capacity = 20_000
    pinned.upstream.put_blob(str(NAME), BIG)
    pinned.upstream.put_manifest(str(NAME), "big", BIG_IMAGE)
    pinned.pin("big")
    pinned.look()
    assert (pinned.state.image.problem, pinned.due_in) == ("not all of it could be stored yet", RETRY)
    pinned.look(RETRY)
    assert (pinned.state.image.problem, pinned.due_in) == ("not all of it could be stored yet", HOUR)
    disk.disk.capacity = None
    pinned.look(HOUR)
    assert pinned.state.is_complete


def test_a_platform_that_the_tag_lost_is_a_problem() -> None:
    pinned = Pinned()
    pinned.pin(platforms=("linux/arm64",))
    pinned.look()
    kept = pinned.protected
    pinned.move(NEW_INDEX)
    pinned.look(HOUR)
    assert not pinned.events(PinMoved)
    assert pinned.state.image.problem == "the image does not support linux/arm64; it supports linux/amd64"
    assert kept <= pinned.protected


def test_a_platform_that_the_image_never_had_is_a_problem() -> None:
    pinned = Pinned()
    pinned.pull()
    pinned.pin(platforms=("linux/amd64", "linux/s390x"))
    pinned.look()
    assert pinned.state.image.problem.startswith("the image does not support linux/s390x; it supports linux/amd64,")


# --- an upstream that does not give the image ---


def test_an_upstream_that_is_down_changes_nothing() -> None:
    pinned = Pinned()
    pinned.pin()
    pinned.look()
    before = pinned.state.image
    pinned.upstream.fault = UpstreamUnreachable("down")
    pinned.look(HOUR)
    after = pinned.state.image
    assert (after.digest, after.tree, after.checked_at) == (before.digest, before.tree, before.checked_at)
    assert (after.problem, pinned.due_in) == ("the upstream is unavailable", RETRY)
    pinned.upstream.fault = None
    pinned.look(RETRY)
    assert (pinned.state.image.problem, pinned.due_in) == ("", HOUR)


def test_an_upstream_that_is_down_from_the_start_is_a_problem() -> None:
    pinned = Pinned()
    pinned.upstream.fault = UpstreamUnreachable("down")
    pinned.pin()
    pinned.look()
    assert "down" in pinned.state.image.problem
    assert (pinned.state.image.digest, pinned.due_in) == (None, RETRY)


def test_a_check_that_fails_is_repeated_no_later_than_usual() -> None:
    pinned = Pinned(pin_check_interval=10)
    pinned.upstream.fault = UpstreamUnreachable("down")
    pinned.pin()
    pinned.look()
    assert pinned.due_in == 10


def test_a_tag_that_is_deleted_upstream_keeps_its_content() -> None:
    pinned = Pinned()
    pinned.pin()
    pinned.look()
    del pinned.upstream.manifests[str(NAME), "multi"]
    pinned.look(HOUR)
    assert pinned.protected == ALL <= pinned.stored
    assert pinned.state.is_complete
    assert pinned.state.image.problem == "the upstream does not have it, or not all of it"
    assert pinned.due_in == HOUR


def test_a_private_image_of_clients_is_unauthorized() -> None:
    pinned = Pinned("bearer")
    pinned.pin(name=PRIVATE)
    pinned.look()
    assert pinned.state.image.problem.startswith("unauthorized: ")
    assert (pinned.stored, pinned.due_in) == (set(), HOUR)


def test_a_private_image_is_fetched_with_the_login_of_the_mirror() -> None:
    login = {"upstream_username": "alice", "upstream_password": "right"}
    pinned = Pinned("bearer", upstream_identity="service", **login)
    pinned.pin(name=PRIVATE)
    pinned.look()
    assert pinned.stored == ALL


def test_a_problem_is_logged_once() -> None:
    pinned = Pinned()
    pinned.upstream.fault = UpstreamUnreachable("down")
    pinned.pin()
    for _ in range(3):
        pinned.look(HOUR)
    assert [(event.image, event.upstream) for event in pinned.events(PinCheckFailed)] == [
        (f"{NAME}:multi", "https://upstream.test")
    ]


def test_a_registry_that_left_the_settings_is_a_problem() -> None:
    pinned = Pinned()
    pinned.pin()
    later = Pinned(upstream_registry="https://another.test")
    later.service = Service(later.upstream, storage=pinned.storage, upstream_registry="https://another.test")
    later.look()
    assert later.state.source is None
    assert later.state.image.problem == "its registry is not mirrored here any more"
    assert later.due_in == RETRY, "a reload may add it again"


def test_a_check_that_breaks_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = Pinned()
    pinned.pin("missing")
    pinned.pin("multi")
    pulling = pinned.service.parts.pull_manifest()

    class Breaking:
        async def __call__(self, caller: Caller, query: Any) -> Any:
            if query.reference.target == Tag("missing"):
                raise ZeroDivisionError
            return await pulling(caller, query)

    monkeypatch.setattr(pinned.service.parts.pinned_images(), "_manifests", Breaking())
    pinned.look()
    missing, multi = pinned.service.run(pinned.service.parts.pinned_images().states())
    assert missing.image.problem.startswith("ZeroDivisionError")
    assert multi.is_complete


# --- operators ---


def test_an_unpinned_image_is_not_protected() -> None:
    pinned = Pinned()
    pinned.pin()
    pinned.look()
    assert pinned.unpin()
    assert not pinned.unpin()
    assert pinned.service.run(pinned.service.parts.pinned_images().states()) == []
    assert pinned.stored == ALL, "it stays until the space is needed"


def test_an_image_that_is_unpinned_during_its_check_stays_unpinned() -> None:
    pinned = Pinned()
    pinned.pin()

    async def unpin(fetch: Any) -> None:
        if "/blobs/" in fetch.resource.path:
            await pinned.service.parts.pinned_images().unpin(pinned.key("multi"))

    pinned.upstream.hold = unpin
    pinned.look()
    assert pinned.service.run(pinned.service.parts.pinned_images().states()) == []


def test_other_platforms_replace_the_pin() -> None:
    pinned = Pinned()
    pinned.pin()
    pinned.look()
    pinned.service.clock.advance(1)
    pinned.pin(platforms=("linux/amd64",))
    assert pinned.protected == ALL, "nothing loses its protection before the next check"
    pinned.look()
    assert pinned.protected == ONLY_AMD


def test_pins_that_cannot_be_stored_are_not_pinned() -> None:
    pinned = Pinned()
    broken: Any = pinned.storage.pins
    broken.is_broken = True
    with pytest.raises(StorageFailed):
        pinned.pin()


# --- the size of the cache ---


def test_shared_content_is_measured_once() -> None:
    pinned = Pinned()
    pinned.pin()
    pinned.pin(str(Digest.of(AMD)))
    pinned.look()
    size = sum(map(len, (INDEX, AMD, ARM7, ARM8, *LAYERS.values())))
    assert pinned.events(PinsMeasured)[-1] == PinsMeasured(size, 0)


def test_images_larger_than_the_cache_are_reported_and_not_fetched() -> None:
    pinned = Pinned(cache_size="1MiB")
    big = [bytes([number]) * 700_000 for number in range(2)]
    contents = [json.dumps({"schemaVersion": 2, "layers": [entry(layer)]}).encode() for layer in big]
    for tag, layer, content in zip("ab", big, contents, strict=True):
        pinned.upstream.put_blob(str(NAME), layer)
        pinned.upstream.put_manifest(str(NAME), tag, content)
        pinned.pin(tag)
    pinned.look()
    first, second = pinned.service.run(pinned.service.parts.pinned_images().states())
    assert (first.is_complete, first.image.problem) == (True, "")
    assert (second.is_complete, second.image.problem) == (
        False,
        "all pinned images together are larger than the cache; raise CACHE_SIZE or unpin some",
    )
    assert Digest.of(big[0]) in pinned.stored
    assert Digest.of(big[1]) not in pinned.stored
    pinned.look(HOUR)
    assert len(pinned.events(PinsTooLarge)) == 1
    assert pinned.unpin("a")
    pinned.look(RETRY)
    assert pinned.state.is_complete
    pinned.look(1)
    pinned.pin("a")
    pinned.look()
    assert len(pinned.events(PinsTooLarge)) == 2, "it is reported again after it was right in between"


def push_with_layer(pinned: Pinned, layer: bytes) -> None:
    """The tag `one` names an image with this layer."""
    content = json.dumps({"schemaVersion": 2, "layers": [entry(layer)]}).encode()
    pinned.upstream.put_blob(str(NAME), layer)
    pinned.upstream.put_manifest(str(NAME), "one", content)


def test_a_layer_that_the_cache_cannot_store_is_reported_and_not_fetched() -> None:
    """It would be fetched at each check, and dropped again."""
    pinned = Pinned(cache_size="1MiB")
    push_with_layer(pinned, bytes(800_000))
    pinned.pin("one")
    pinned.look()
    assert pinned.state.image.problem == "one of its layers is larger than the cache can store; raise CACHE_SIZE"
    assert pinned.due_in == RETRY
    assert not [fetch for fetch in pinned.upstream.asked if "/blobs/" in fetch.resource.path]


def test_old_content_stays_protected_while_the_disk_has_no_space_for_the_new() -> None:
    pinned = Pinned()
    pinned.pin()
    pinned.look()
    pinned.move(NEW_INDEX)
    store: Any = pinned.service.parts.store()
    store.disk.capacity = pinned.state.held + len(FRESH)
    pinned.look(HOUR)
    assert pinned.state.image.problem == "not all of it could be stored yet"
    assert pinned.state.image.digest == Digest.of(INDEX)
    assert pinned.protected == ALL | ALL_NEW
    store.disk.capacity = None
    pinned.look(HOUR)
    assert (pinned.state.image.problem, pinned.protected) == ("", ALL_NEW)


def test_old_content_makes_space_if_the_cache_is_too_small_for_both() -> None:
    pinned = Pinned(cache_size="1MiB")
    push_with_layer(pinned, bytes(700_000))
    pinned.pin("one")
    pinned.look()
    new = bytes([1]) * 700_000
    push_with_layer(pinned, new)
    pinned.look(HOUR)
    assert (pinned.state.image.problem, pinned.due_in) == ("not all of it could be stored yet", RETRY)
    pinned.look(RETRY)
    assert (pinned.state.image.problem, pinned.state.is_complete) == ("", True)
    assert Digest.of(new) in pinned.stored
