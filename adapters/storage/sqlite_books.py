"""Who was let in where, and how upstreams want to be asked, in SQLite."""

import json

from adapters.storage.sqlite_database import Change, SqliteDatabase
from application.ports.index import CallerIdentity
from domain.challenge import Challenge
from domain.ports import Clock
from domain.records import CallerId, Grant
from domain.trust import UpstreamAuth
from domain.upstreams import Source, Upstream

_SWEEP_SECONDS = 60.0


class SqliteGrantStore:
    """Plays the GrantStore."""

    def __init__(self, database: SqliteDatabase, clock: Clock) -> None:
        self._database = database
        self._sweep = _Sweep("DELETE FROM grants WHERE kept_until <= ?", clock)

    async def find(self, caller: CallerId, source: Source) -> Grant | None:
        rows = await self._database.rows(
            "SELECT given_at, ends_at FROM grants WHERE caller = ? AND upstream = ? AND repository = ?",
            _grant(caller, source),
        )
        return next((Grant(caller, source, given_at, ends_at) for given_at, ends_at in rows), None)

    async def keep(self, grant: Grant, until: float) -> None:
        row = (*_grant(grant.caller, grant.source), grant.given_at, grant.ends_at, until)
        await self._database.change(
            ("INSERT OR REPLACE INTO grants VALUES (?, ?, ?, ?, ?, ?)", [row]), *self._sweep.due()
        )

    async def forget(self, caller: CallerId, source: Source) -> None:
        statement = "DELETE FROM grants WHERE caller = ? AND upstream = ? AND repository = ?"
        await self._database.change((statement, [_grant(caller, source)]))


class SqliteTokenStore:
    """Plays the TokenStore."""

    def __init__(self, database: SqliteDatabase, clock: Clock) -> None:
        self._database = database
        self._sweep = _Sweep("DELETE FROM tokens WHERE ends_at <= ?", clock)

    async def find(self, fingerprint: str) -> CallerIdentity | None:
        rows = await self._database.rows("SELECT caller, ends_at FROM tokens WHERE fingerprint = ?", (fingerprint,))
        return next((CallerIdentity(CallerId(caller), ends_at) for caller, ends_at in rows), None)

    async def keep(self, fingerprint: str, identity: CallerIdentity) -> None:
        row = (fingerprint, identity.caller, identity.ends_at)
        await self._database.change(("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", [row]), *self._sweep.due())


class SqliteUpstreamAuthStore:
    """Plays the UpstreamAuthStore."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def find(self, upstream: Upstream) -> UpstreamAuth | None:
        rows = await self._database.rows("SELECT challenges FROM stances WHERE upstream = ?", (upstream.url,))
        return next((_read_stance(text) for (text,) in rows), None)

    async def keep(self, upstream: Upstream, auth: UpstreamAuth) -> None:
        text = json.dumps([[one.scheme, one.parameters] for one in auth.challenges])
        await self._database.change(("INSERT OR REPLACE INTO stances VALUES (?, ?)", [(upstream.url, text)]))


class _Sweep:
    """What is over is thrown away when something is kept, and no more often than once a minute."""

    def __init__(self, statement: str, clock: Clock) -> None:
        self._statement, self._clock = statement, clock
        self._due_at = 0.0

    def due(self) -> list[Change]:
        now = self._clock.now()
        if now < self._due_at:
            return []
        self._due_at = now + _SWEEP_SECONDS
        return [(self._statement, [(now,)])]


def _grant(caller: CallerId, source: Source) -> tuple[str, ...]:
    return caller, source.upstream.url, str(source.repository)


def _read_stance(text: str) -> UpstreamAuth | None:
    """What was written; None where it is none."""
    try:
        read = [(scheme, [(name, value) for name, value in parameters]) for scheme, parameters in json.loads(text)]
    except (ValueError, TypeError):
        return None
    words = [word for scheme, parameters in read for word in (scheme, *(part for pair in parameters for part in pair))]
    if not all(isinstance(word, str) for word in words):
        return None
    return UpstreamAuth(tuple(Challenge(scheme, tuple(parameters)) for scheme, parameters in read))
