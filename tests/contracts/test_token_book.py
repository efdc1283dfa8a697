"""What every TokenStore does."""

from application.ports.index import CallerIdentity
from domain.records import ANONYMOUS_CALLER, CallerId
from tests.contracts.storage import Worker, by_two_workers

ALICE = CallerIdentity(CallerId("f1" * 32), 1_800_000_300.5)
NOBODY = CallerIdentity(ANONYMOUS_CALLER, 1_800_000_100.0)


@by_two_workers
async def test_what_is_kept_is_found_by_all(one: Worker, other: Worker) -> None:
    assert await one.tokens.find("first") is None
    await one.tokens.keep("first", ALICE)
    await other.tokens.keep("second", NOBODY)
    assert await one.tokens.find("first") == await other.tokens.find("first") == ALICE
    assert await one.tokens.find("second") == NOBODY
    assert await one.tokens.find("First") is await one.tokens.find("") is None


@by_two_workers
async def test_an_identity_replaces_the_one_before(one: Worker, other: Worker) -> None:
    await one.tokens.keep("first", ALICE)
    await other.tokens.keep("first", NOBODY)
    assert await one.tokens.find("first") == NOBODY
