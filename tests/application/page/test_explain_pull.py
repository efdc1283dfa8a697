"""The explanation of a pull says what the registry API does with the same pull."""

import asyncio
from dataclasses import replace

import pytest

from application.access.access_request import FOREVER, Caller, PullAccess
from application.access.login_attempts import Attempt
from application.page.explain_pull import PullExplanation, PullQuestion, Reason, Sends, Verdict
from application.page.viewer import Viewer
from application.ports.activity import Activity
from application.ports.index import CallerIdentity
from application.ports.upstream import ForwardedCredentials, SessionCredentials
from domain.access import ANONYMOUS, Credentials
from domain.access_rules import AccessRules, Effect
from domain.allowance import RateLimit
from domain.authorization import parse_authorization
from domain.cache_policy import FreshnessRule
from domain.digest import Digest
from domain.errors import (
    Denied,
    IdentityRejected,
    NameUnknown,
    RegistryError,
    TooManyAttempts,
    Unauthorized,
    UpstreamAuthUnknown,
    UpstreamUnreachable,
)
from domain.events import PullDenied
from domain.names import Reference, RepositoryName
from domain.patterns import TagPattern
from domain.records import ANONYMOUS_CALLER, ANONYMOUS_CLASS, PERSONAL_CLASS
from domain.trust import UpstreamAuth, UpstreamIdentity
from domain.upstream_table import RegistryHint
from entrypoints.settings import UpstreamSettings
from tests.application.page.gallery import LOGINS, PEOPLE, PRIVATE_IMAGE, PUBLIC_IMAGE, Gallery
from tests.application.support.ruled import CLOSED, FOR_ACCOUNTS, rule, ruled
from tests.application.support.service import ALICE, NAME, PRIVATE, REALM, Service, basic, stocked
from tests.application.support.trust_table import ROWS
from tests.fakes.upstreams import FakeUpstreams

OPERATOR = Viewer(Caller(None, REALM), "olga", is_operator=True)
EACH_ROW = pytest.mark.parametrize("row", ROWS)
ADDRESS = "192.0.2.7"
HUB, QUAY = "https://registry-1.docker.io", "https://quay.io"
NO_RULES = AccessRules()
ONLY_PRIVATE = AccessRules((rule(Effect.ALLOW, "private/**"),))
_REFUSALS: dict[type[RegistryError], set[Reason]] = {
    Denied: {Reason.DENIED},
    Unauthorized: {Reason.LOGIN_NEEDED, Reason.ACCOUNT_UNKNOWN},
    TooManyAttempts: {Reason.TOO_MANY_LOGINS},
    IdentityRejected: {Reason.IDENTITY_IMPOSSIBLE},
    UpstreamAuthUnknown: {Reason.UPSTREAM_NOT_KNOWN},
}


async def explained(
    service: Service, account: str = ANONYMOUS, name: RepositoryName = NAME, reference: str = "1", address: str = ""
) -> PullExplanation:
    """Asserts that the upstream gets nothing and that no event is emitted."""
    before = _seen(service)
    question = PullQuestion(name, RegistryHint(), Reference.parse(reference).target, account, address)
    explanation = await service.parts.explain_pull()(OPERATOR, question)
    assert _seen(service) == before
    return explanation


def _seen(service: Service) -> tuple[int, ...]:
    upstream = service.upstream
    fakes = list(upstream.by_url.values()) if isinstance(upstream, FakeUpstreams) else [upstream]
    return len(service.events), *(len(one.asked) + len(one.pinged) + len(one.relayed) for one in fakes)


def two_upstreams(scheme: str, identity: UpstreamIdentity) -> Service:
    """Docker Hub with this identity, and Quay, under one host name."""
    fakes = FakeUpstreams({HUB: stocked(scheme), QUAY: stocked("none")})
    upstreams = (
        UpstreamSettings(url=HUB, identity=identity),
        UpstreamSettings(url=QUAY, identity=UpstreamIdentity.ANONYMOUS),
    )
    return Service(fakes, upstreams=upstreams)


async def authorized(service: Service, header: str | None, name: RepositoryName = NAME, address: str = "") -> object:
    """The credentials that Authorize lets the upstream have, or the type of its error."""
    caller = Caller(parse_authorization(header), REALM, address)
    try:
        async with service.parts.authorize().repository(caller, name, RegistryHint()) as access:
            return access.credentials
    except RegistryError as error:
        return type(error)


def agrees(explanation: PullExplanation, met: object) -> bool:
    """Whether the explanation is that of what Authorize did."""
    reason, sends = explanation.decision.reason, explanation.decision.sends
    if isinstance(met, type):
        return reason in _REFUSALS.get(met, set())
    if reason not in {Reason.ALLOWED, Reason.UPSTREAM_DECIDES}:
        return False
    assert isinstance(met, ForwardedCredentials | SessionCredentials)
    match met:
        case SessionCredentials(login) if sends is Sends.MIRRORS:
            return login == explanation.source.upstream.credentials is not None
        case SessionCredentials(login):
            return (login is not None) == (sends is Sends.CALLERS)
        case ForwardedCredentials(raw):
            return (raw is not None) == (sends is Sends.CALLERS)
    return False


@EACH_ROW
@pytest.mark.parametrize(
    "rules", [NO_RULES, CLOSED, ONLY_PRIVATE, FOR_ACCOUNTS], ids=["none", "deny", "allow", "named"]
)
def test_the_explanation_is_what_authorize_does(row: str, rules: AccessRules) -> None:
    gallery = Gallery(row)
    service = ruled(gallery.service, rules)
    people = [*PEOPLE, "carol"] if gallery.has_accounts else PEOPLE

    def header(person: str) -> str | None:
        if person == "carol":
            return basic(Credentials("carol", "any"))
        if gallery.number == 1:
            return basic(LOGINS[person]) if person in LOGINS else None
        # Without a token, row 3 answers with the challenge, with which every client fetches one.
        return gallery.header(person)

    async def act() -> None:
        for person in people:
            for name in (NAME, PRIVATE):
                account = ANONYMOUS if person == "nobody" else person
                met = await authorized(service, header(person), name)
                explanation = await explained(service, account, name)
                assert agrees(explanation, met), (person, str(name), explanation.decision, met)

    gallery.run(act())


@pytest.mark.parametrize("row", [row for row, (_, _, _, has_accounts, _) in ROWS.items() if has_accounts])
def test_the_account_policy_decides_first(row: str) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        for account, reason in ((ANONYMOUS, Reason.LOGIN_NEEDED), ("carol", Reason.ACCOUNT_UNKNOWN)):
            decision = (await explained(gallery.service, account)).decision
            assert (decision.reason, decision.reason.verdict) == (reason, Verdict.REFUSED)
        verdict = (await explained(gallery.service, "alice")).decision.reason.verdict
        assert verdict is (Verdict.ALLOWED if gallery.number == 6 else Verdict.OPEN)

    gallery.run(act())


@pytest.mark.parametrize("row", [row for row, (_, _, _, has_accounts, _) in ROWS.items() if not has_accounts])
def test_without_accounts_no_name_is_known_here(row: str) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        decision = (await explained(gallery.service, "anyone")).decision
        expected = Reason.UPSTREAM_DECIDES if gallery.number in {1, 3, 4} else Reason.ALLOWED
        assert decision.reason is expected
        assert decision.row
        assert decision.row.number == gallery.number

    gallery.run(act())


@pytest.mark.parametrize(
    ("rules", "account", "name", "number", "reason"),
    [
        (FOR_ACCOUNTS, "bob", PRIVATE, 1, Reason.DENIED),
        (FOR_ACCOUNTS, "alice", PRIVATE, 2, Reason.ALLOWED),
        (ONLY_PRIVATE, "alice", NAME, None, Reason.DENIED),
        (CLOSED, "alice", PRIVATE, None, Reason.ALLOWED),
        (AccessRules((), Effect.DENY), "alice", NAME, None, Reason.DENIED),
        (NO_RULES, "alice", NAME, None, Reason.ALLOWED),
    ],
)
def test_the_deciding_rule_is_named(
    rules: AccessRules, account: str, name: RepositoryName, number: int | None, reason: Reason
) -> None:
    gallery = Gallery("6 anonymous")
    ruled(gallery.service, rules)

    async def act() -> None:
        explanation = await explained(gallery.service, account, name)
        assert (explanation.decision.reason, explanation.rule_number) == (reason, number)
        assert explanation.decision.rule == (rules.rules[number - 1] if number else None)
        met = await authorized(gallery.service, basic(LOGINS[account]), name)
        assert agrees(explanation, met)
        # Only the pull is a refusal, and not the question.
        denials = [event for event in gallery.service.events if isinstance(event, PullDenied)]
        assert len(denials) == (reason is Reason.DENIED)

    gallery.run(act())


def test_a_registry_that_is_not_mirrored_is_unknown() -> None:
    service = two_upstreams("none", UpstreamIdentity.ANONYMOUS)
    for name, expected in (("quay.io/org/app", "quay.io/org/app"), ("nginx", "docker.io/library/nginx")):
        source = service.run(explained(service, name=RepositoryName(name))).source
        assert f"{source.upstream.name}/{source.repository}" == expected
    other = RepositoryName("ghcr.io/org/app")
    assert service.run(authorized(service, None, other)) is NameUnknown
    with pytest.raises(NameUnknown):
        service.run(explained(service, name=other))


def test_an_upstream_that_was_never_reached_is_not_asked() -> None:
    service = Service(stocked("bearer"))
    service.upstream.fault = UpstreamUnreachable("gone")

    async def act() -> None:
        explanation = await explained(service)
        assert explanation.decision.reason is Reason.UPSTREAM_NOT_KNOWN
        assert agrees(explanation, await authorized(service, None))
        # What an earlier process learnt counts.
        await service.parts.storage().index.keep_upstream_auth(
            service.parts.upstream(), UpstreamAuth((stocked("bearer").challenge(None),))
        )
        decision = (await explained(service)).decision
        assert decision.row
        assert decision.row.number == 3

    service.run(act())


def test_an_identity_that_is_not_possible_is_named() -> None:
    service = two_upstreams("basic", UpstreamIdentity.CLIENT)

    async def act() -> None:
        met = await authorized(service, None)
        explanation = await explained(service)
        assert explanation.decision.reason is Reason.IDENTITY_IMPOSSIBLE
        assert agrees(explanation, met)

    service.run(act())


@pytest.mark.parametrize("count", [0, 2, 3, 5, 12])
def test_the_delay_is_what_a_login_waits(count: int) -> None:
    gallery = Gallery("6 anonymous")
    service = gallery.service

    async def act() -> None:
        for _ in range(count):
            service.parts.attempts().wrong(Attempt(ADDRESS, "alice", exists=True))
        explanation = await explained(service, "alice", address=ADDRESS)
        assert explanation.decision.reason is Reason.ALLOWED
        assert (await explained(service, "alice")).decision.wait.seconds == 0
        assert (await explained(service, "bob", address=ADDRESS)).decision.wait.seconds == 0
        assert (await explained(service, "alice", address="192.0.2.8")).decision.wait.seconds == 0
        before = service.clock.now()
        met = await authorized(service, basic(ALICE), address=ADDRESS)
        assert agrees(explanation, met)
        assert service.clock.now() - before == pytest.approx(explanation.decision.wait.seconds)
        assert bool(explanation.decision.wait.seconds) == (count >= 3)

    gallery.run(act())


@pytest.mark.parametrize(("row", "is_upstreams"), [("6 anonymous", False), ("8", False), ("8", True), ("4", True)])
def test_a_login_that_would_wait_too_long_is_refused(row: str, *, is_upstreams: bool) -> None:
    gallery = Gallery(row)
    service = gallery.service

    async def act() -> None:
        attempts = service.parts.relayed_attempts() if is_upstreams else service.parts.attempts()
        name = f"alice at {service.parts.upstream().url}" if is_upstreams else "alice"
        attempt, ended = Attempt(ADDRESS, name, exists=True), asyncio.Event()
        for _ in range(12):
            attempts.wrong(attempt)

        async def hold() -> None:
            async with attempts.turn(attempt):
                await ended.wait()

        holding = []
        for _ in range(2):  # the first is being checked, and the second waits for it
            holding.append(asyncio.create_task(hold()))
            await asyncio.sleep(0.01)
        explanation = await explained(service, "alice", address=ADDRESS)
        assert explanation.decision.reason is Reason.TOO_MANY_LOGINS
        assert agrees(explanation, await authorized(service, basic(ALICE), address=ADDRESS))
        ended.set()
        await asyncio.gather(*holding)

    gallery.run(act())


@pytest.mark.parametrize("row", ["1 basic", "4", "7", "8"])
def test_wrong_logins_at_the_upstream_delay_the_next_ones(row: str) -> None:
    gallery = Gallery(row)
    service = gallery.service

    async def act() -> None:
        url = service.parts.upstream().url
        for _ in range(5):
            service.parts.relayed_attempts().wrong(Attempt(ADDRESS, f"alice at {url}", exists=True))
        wait = (await explained(service, "alice", address=ADDRESS)).decision.wait
        assert wait.seconds > 0
        before = service.clock.now()
        assert not isinstance(await authorized(service, basic(ALICE), address=ADDRESS), type)
        assert service.clock.now() - before == pytest.approx(wait.seconds)

    gallery.run(act())


def test_the_last_known_state_of_the_upstream_is_told() -> None:
    service = Service(stocked("none"))

    async def act() -> None:
        await service.warm_up()
        assert (await explained(service)).upstream.failure is None
        service.parts.allowances().saw(service.parts.upstream(), ANONYMOUS_CALLER, RateLimit(100, 0, 21600))
        service.upstream.fault = UpstreamUnreachable("gone")
        with pytest.raises(UpstreamUnreachable):
            await service.manifest(None, NAME)
        service.parts.activity_table().report(Activity((), tuple(service.parts.find_troubles()())))
        state = (await explained(service)).upstream
        assert state.failure
        assert state.failure.message == "gone"
        assert state.allowance
        assert state.allowance.remaining == 0
        assert state.status is None

    service.run(act())


@EACH_ROW
@pytest.mark.parametrize("seconds", [0, 301, 90_000, 10_000_000])
def test_the_cache_stands_in_where_the_explanation_says_so(row: str, seconds: float) -> None:
    gallery = Gallery(row)

    async def act() -> None:
        for person in PEOPLE:
            await gallery.pull(person, NAME)
            await gallery.pull(person, PRIVATE)
        gallery.service.clock.advance(seconds)
        pairs = [(person, name) for person in PEOPLE for name in (NAME, PRIVATE)]
        said = [await explained(gallery.service, "" if person == "nobody" else person, name) for person, name in pairs]
        for (person, name), explanation in zip(pairs, said, strict=True):
            can_stand_in = explanation.cache is not None and explanation.cache.can_stand_in
            is_served = await gallery.is_served(person, name)
            # Of a caller with a login of its own, less is said than what the login would give.
            is_known = explanation.decision.sends is not Sends.CALLERS
            assert can_stand_in == is_served if is_known else can_stand_in <= is_served, (person, str(name))

    gallery.run(act())


def test_to_whom_a_tag_and_a_digest_were_given_is_told() -> None:
    gallery = Gallery("3")

    async def act() -> None:
        assert (await explained(gallery.service)).cache is None
        await gallery.pull("nobody")
        await gallery.pull("alice")
        await gallery.pull("alice", PRIVATE)
        for name, image, classes in (
            (NAME, PUBLIC_IMAGE, {ANONYMOUS_CLASS, PERSONAL_CLASS}),
            (PRIVATE, PRIVATE_IMAGE, {PERSONAL_CLASS}),
        ):
            by_tag = (await explained(gallery.service, name=name)).cache
            assert by_tag
            assert (by_tag.classes, by_tag.is_stored) == (classes, True)
            assert by_tag.checked_at == gallery.service.clock.now()
            by_digest = (await explained(gallery.service, name=name, reference=str(by_tag.digest))).cache
            assert by_digest == replace(by_tag, checked_at=None)
            assert by_digest
            assert by_digest.digest == Digest.of(image)

    gallery.run(act())


def test_an_image_that_was_evicted_does_not_stand_in() -> None:
    gallery = Gallery("2")

    async def act() -> None:
        await gallery.pull("nobody")
        known = (await explained(gallery.service)).cache
        assert known
        assert (known.is_stored, known.can_stand_in) == (True, True)
        await gallery.service.parts.store().drop(known.digest)
        known = (await explained(gallery.service)).cache
        assert known is None or (known.is_stored, known.can_stand_in) == (False, False)

    gallery.run(act())


def test_a_tag_that_must_not_be_served_any_more_does_not_stand_in() -> None:
    stale = FreshnessRule((TagPattern("1"),), (), None, 100)
    gallery = Gallery("2", upstreams=(UpstreamSettings(url="https://upstream.test", freshness=(stale,)),))

    async def act() -> None:
        await gallery.pull("nobody")
        for seconds, can_stand_in in ((90, True), (20, False)):
            gallery.service.clock.advance(seconds)
            known = (await explained(gallery.service)).cache
            assert known
            assert known.can_stand_in is can_stand_in is await gallery.is_served("nobody", NAME)

    gallery.run(act())


def test_public_content_stands_in_for_a_login_only_while_it_is_public() -> None:
    gallery = Gallery("3")

    async def act() -> None:
        await gallery.pull("nobody")
        for is_public in (True, False):
            known = (await explained(gallery.service, "alice")).cache
            assert known
            assert known.can_stand_in is is_public is await gallery.is_served("nobody", NAME)
            anonymous = CallerIdentity(ANONYMOUS_CALLER, FOREVER)
            await gallery.service.parts.grants().end(PullAccess(anonymous, SessionCredentials(None), gallery.source()))

    gallery.run(act())


def test_a_refused_caller_gets_nothing_from_the_cache() -> None:
    gallery = Gallery("6 anonymous")

    async def act() -> None:
        await gallery.pull("alice")
        ruled(gallery.service, CLOSED)
        gallery.service.parts.reset_singletons()
        known = (await explained(gallery.service, "alice")).cache
        assert known
        assert (known.is_stored, known.can_stand_in) == (True, False)
        assert not await gallery.is_served("alice", NAME)

    gallery.run(act())
