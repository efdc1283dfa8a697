"""A caller whom the upstream refuses meets the same whether the content is cached or not, in rows 3 and 7."""

from collections.abc import Callable
from typing import Any

import pytest

from application.access.access_request import Caller
from application.blobs.blob_query import BlobQuery
from application.ports.upstream import SessionCredentials, UpstreamRequest
from domain.authorization import parse_authorization
from domain.byte_ranges import ByteRange
from domain.digest import Digest
from domain.errors import BlobUnknown, Denied, ManifestUnknown, RegistryError
from domain.names import RepositoryName
from tests.application.support.pulls import Pulls
from tests.application.support.service import ALICE, BOB, LAYER_DIGEST, NAME, PRIVATE, REALM, accounts, basic
from tests.application.support.watched import ALICES, BOBS, challenged

SECRET = b'{"schemaVersion":2,"layers":[],"annotations":{"secret":"yes"}}'
SECRET_LAYER = b"a layer that bob may not read" * 3000
MANIFEST, BLOB = Digest.of(SECRET), Digest.of(SECRET_LAYER)
TYPE = "application/vnd.oci.image.manifest.v1+json"
QUERIES = {
    "blob": (BLOB, {}),
    "blob by HEAD": (BLOB, {"head": True}),
    "blob that the client has": (BLOB, {"known": True}),
    "first bytes": (BLOB, {"ranges": (ByteRange(0, 9),)}),
    "last bytes": (BLOB, {"ranges": (ByteRange(None, 9),)}),
    "bytes from the first on": (BLOB, {"ranges": (ByteRange(0, None),)}),
    "bytes from the tenth on": (BLOB, {"ranges": (ByteRange(9, None),)}),
    "bytes that are not there": (BLOB, {"ranges": (ByteRange(10**9, None),)}),
    "several ranges, the first to the end": (BLOB, {"ranges": (ByteRange(0, None), ByteRange(50, 59))}),
    "several ranges": (BLOB, {"ranges": (ByteRange(5, 9), ByteRange(50, 59))}),
    "manifest": (MANIFEST, {}),
    "manifest of one type": (MANIFEST, {"accept": (TYPE,)}),
    "manifest by HEAD": (MANIFEST, {"head": True}),
    "manifest that the client has": (MANIFEST, {"known": frozenset({str(MANIFEST)})}),
}
REFUSALS: dict[str, Callable[[Digest], RegistryError]] = {
    "401": lambda _: challenged(),
    "403": lambda _: Denied("no"),
    "404": lambda digest: BlobUnknown("unknown") if digest == BLOB else ManifestUnknown("unknown"),
}


class Refused(Pulls):
    """The upstream refuses `digest` to bob: in alice's repository, or in another one, where he was let in just now."""

    def __init__(self, row: int, digest: Digest, refusal: Callable[[Digest], RegistryError]) -> None:
        super().__init__(**({"accounts": accounts(ALICE, BOB)} if row == 7 else {}))
        self.alice, self.bob = (basic(ALICE), basic(BOB)) if row == 7 else (ALICES, BOBS)
        self.upstream.put_manifest(str(PRIVATE), "secret", SECRET)
        self.upstream.put_blob(str(PRIVATE), SECRET_LAYER)

        def refuse(fetch: UpstreamRequest) -> RegistryError | None:
            is_bobs = (
                fetch.credentials.login == BOB
                if isinstance(fetch.credentials, SessionCredentials)
                else fetch.credentials.raw == BOBS
            )
            return refusal(digest) if is_bobs and fetch.resource.path.endswith(str(digest)) else None

        self.upstream.refuse = refuse
        self.digest = digest

    async def ask(self, header: str, digest: Digest, query: dict[str, Any], name: RepositoryName = PRIVATE) -> None:
        if digest == MANIFEST:
            await self.pull(header, name=name, reference=str(digest), **query)
            return
        caller = Caller(parse_authorization(header), REALM)
        async with self.service.parts.pull_blob().open(caller, BlobQuery(name, digest, **query)) as answer:
            if answer.pieces:
                async for _ in answer.pieces:
                    pass

    async def met(self, query: dict[str, Any], *, is_cached: bool, has_grant: bool) -> tuple[object, ...]:
        """All requests upstream, and all that the refusal says."""
        if is_cached:
            await self.ask(self.alice, self.digest, {})
            assert self.digest in self.service.parts.storage().store.content  # type: ignore[attr-defined]
        if has_grant:
            await self.ask(self.bob, LAYER_DIGEST, {}, NAME)
        self.upstream.asked.clear()
        refusals = []
        for _ in range(2):
            with pytest.raises(RegistryError) as caught:
                await self.ask(self.bob, self.digest, query, NAME if has_grant else PRIVATE)
            refusals.append((type(caught.value), caught.value.args, vars(caught.value)))
        return refusals, list(self.upstream.asked)


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("has_grant", [False, True], ids=["no grant", "a grant"])
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("row", [3, 7])
def test_a_refusal_does_not_tell_whether_the_content_is_cached(
    row: int, query: str, refusal: str, *, has_grant: bool
) -> None:
    digest, asked = QUERIES[query]

    def met(*, is_cached: bool) -> Any:
        refused = Refused(row, digest, REFUSALS[refusal])
        return refused.run(refused.met(asked, is_cached=is_cached, has_grant=has_grant))

    cached, uncached = met(is_cached=True), met(is_cached=False)
    assert cached == uncached
    assert cached[1], "the upstream was asked"
