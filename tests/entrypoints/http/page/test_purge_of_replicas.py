"""What an operator of a replica removes on the page: from its own cache, or also from the shared store."""

from typing import Any

import pytest

from domain.digest import Digest
from domain.events import OperatorActed
from tests.entrypoints.conftest import Start
from tests.entrypoints.http.page.test_administration import (
    ANN,
    MANIFEST,
    OLGA,
    OPERATORS,
    OTHER_MANIFEST,
    PLACE,
    audits,
    form_token,
    is_stored,
    parsed,
    preview,
    pull,
    purge,
)
from tests.entrypoints.service import Service
from tests.fakes.parts import opening
from tests.fakes.shared_tier import FakeTier
from tests.fakes.upstream import FakeUpstream

SHARED = {"shared_store": "s3://bucket", "shared_index": "redis://index.test", **OPERATORS}
EVERYWHERE = PLACE | {"everywhere": "yes"}


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_manifest("team/app", "v1", MANIFEST)
    upstream.put_manifest("team/app", "v2", OTHER_MANIFEST)
    return upstream


async def replica(
    tier: FakeTier, start: Start, upstream: FakeUpstream, login: str | None = None, **settings: object
) -> Service:
    """A replica that has pulled both tags."""
    service = await start(parts=opening(upstream, tier.clock, tier.storage()), **SHARED, **settings)
    assert (await pull(service, login=login), await pull(service, "v2", login)) == (200, 200)
    return service


def is_shared(tier: FakeTier, content: bytes = MANIFEST) -> bool:
    return Digest.of(content) in tier.store.kept


async def shown(service: Service, fields: dict[str, str] = PLACE) -> str:
    answer = await service.get(preview(fields), {"Authorization": OLGA})
    assert answer.status_code == 200
    assert parsed(answer.text) is not None
    return str(answer.text)


async def removed(service: Service, fields: dict[str, str]) -> Any:
    return await purge(service, await form_token(service), fields)


async def test_the_preview_says_what_is_here_and_what_is_in_the_shared_store(
    start: Start, upstream: FakeUpstream
) -> None:
    tier = FakeTier()
    service = await replica(tier, start, upstream)
    tag, repository = await shown(service), await shown(service, PLACE | {"reference": ""})
    assert "Other replicas keep what is in their folders" in tag
    assert tag.count("Manifests and blobs: 1, 31 B") == repository.count("Manifests and blobs: 2, ") == 2
    await tier.store.drop(Digest.of(MANIFEST))
    tag = await shown(service)
    assert tag.count("Manifests and blobs: 1, 31 B") == tag.count("Manifests and blobs: 0, 0 B") == 1
    assert 'name="everywhere"' in tag
    assert audits(service) == []


async def test_a_purge_leaves_the_shared_store_alone_unless_it_is_asked_for(
    start: Start, upstream: FakeUpstream
) -> None:
    tier = FakeTier()
    service = await replica(tier, start, upstream)
    assert (await removed(service, PLACE)).headers["Location"] == "/admin?removed=1"
    assert (await is_stored(service), is_shared(tier)) == (False, True)
    assert [one.result for one in audits(service)] == ["1 removed"]


@pytest.mark.parametrize("reference", ["v1", str(Digest.of(MANIFEST))])
async def test_a_purge_also_from_the_shared_store_says_so_in_its_audit_event(
    start: Start, upstream: FakeUpstream, reference: str
) -> None:
    tier = FakeTier()
    service = await replica(tier, start, upstream)
    done = await removed(service, EVERYWHERE | {"reference": reference})
    assert (done.status_code, done.headers["Location"]) == (303, "/admin?removed=1")
    assert (await is_stored(service), is_shared(tier)) == (False, False)
    assert (await is_stored(service, OTHER_MANIFEST), is_shared(tier, OTHER_MANIFEST)) == (True, True)
    subject = f"upstream.test/team/app{'@' if ':' in reference else ':'}{reference}"
    said = "1 removed, 1 from the shared store"
    assert audits(service) == [OperatorActed("olga", "127.0.0.1", "purge", subject, said)]


async def test_a_digest_of_another_repository_stays_in_the_shared_store(start: Start, upstream: FakeUpstream) -> None:
    tier = FakeTier()
    service = await replica(tier, start, upstream)
    fields = EVERYWHERE | {"repository": "team/other", "reference": str(Digest.of(MANIFEST))}
    assert (await shown(service, fields)).count("Manifests and blobs: 0, 0 B") == 2
    assert (await removed(service, fields)).headers["Location"] == "/admin?removed=0"
    assert (await is_stored(service), is_shared(tier)) == (True, True)


async def test_a_purge_by_age_concerns_only_this_replica(start: Start, upstream: FakeUpstream) -> None:
    tier = FakeTier()
    service = await replica(tier, start, upstream)
    await service.parts.eviction().flush()
    tier.clock.advance(2 * 86400)
    fields = {"days": "1", "everywhere": "yes"}
    text = await shown(service, fields)
    assert text.count("Manifests and blobs: 2, ") == 1
    assert ("In the shared store" in text, 'name="everywhere"' in text) == (False, False)
    assert (await removed(service, fields)).headers["Location"] == "/admin?removed=2"
    assert (await is_stored(service), is_shared(tier), is_shared(tier, OTHER_MANIFEST)) == (False, True, True)


async def test_a_store_that_does_not_answer_is_shown_and_nothing_is_removed(
    start: Start, upstream: FakeUpstream
) -> None:
    tier = FakeTier()
    service = await replica(tier, start, upstream)
    tier.store.is_away = True
    text = await shown(service)
    assert "no answer" in text
    assert "the fake shared store is away" in text
    done = await removed(service, EVERYWHERE)
    assert done.status_code >= 500
    assert "the fake shared store is away" in done.text
    tier.store.is_away = False
    assert (await is_stored(service), is_shared(tier)) == (True, True)
    assert [one.result for one in audits(service)] == ["failed: the fake shared store is away"]
    assert (await removed(service, EVERYWHERE)).headers["Location"] == "/admin?removed=1"


async def test_only_operators_see_what_is_in_the_shared_store(start: Start, upstream: FakeUpstream) -> None:
    tier = FakeTier()
    service = await replica(tier, start, upstream, ANN, accounts=ANN.removeprefix("Basic "))
    for login in ({}, {"Authorization": ANN}):
        answer = await service.get(preview(PLACE), login)
        assert answer.status_code == 401
        assert str(Digest.of(MANIFEST))[:19] not in answer.text
        forged = await service.client.post("/admin/purge", data=EVERYWHERE, headers=login, follow_redirects=False)
        assert forged.status_code == 401
    assert is_shared(tier)
