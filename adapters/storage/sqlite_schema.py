"""The tables of the index and of the history. A change of a table changes the version. A file of an earlier version is
upgraded if the schema says how; a file of any other version is replaced.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Schema:
    """What a file contains. `name`: what messages call it; `loss`: what follows if it cannot be read or written, and
    `quiet_seconds`: how long the log does not repeat this; `upgrades`: the statements that bring a file of each earlier
    version to the next one.
    """

    name: str
    version: int
    tables: tuple[str, ...]
    loss: str
    quiet_seconds: float
    upgrades: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


VERSION = 4

_PIN_TABLES = (
    # `record`: the rest of domain.pins.PinnedImage, as JSON. The eviction reads the tree in it, and would fail for good
    # at a text that is not JSON.
    """CREATE TABLE pins (
        upstream TEXT NOT NULL, repository TEXT NOT NULL, reference TEXT NOT NULL, pinned_at REAL NOT NULL,
        record TEXT NOT NULL CHECK (json_valid(record)), PRIMARY KEY (upstream, repository, reference)
    ) WITHOUT ROWID""",
    "CREATE TABLE leases (name TEXT NOT NULL PRIMARY KEY, holder TEXT NOT NULL, ends_at REAL NOT NULL) WITHOUT ROWID",
)

_INDEX_TABLES = (
    """CREATE TABLE links (
        upstream TEXT NOT NULL, repository TEXT NOT NULL, kind TEXT NOT NULL, digest TEXT NOT NULL,
        given_to TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER, given_at REAL NOT NULL,
        PRIMARY KEY (upstream, repository, kind, digest, given_to)
    ) WITHOUT ROWID""",
    "CREATE INDEX links_by_digest ON links (digest)",
    "CREATE INDEX links_by_time ON links (upstream, given_at)",
    """CREATE TABLE tags (
        upstream TEXT NOT NULL, repository TEXT NOT NULL, tag TEXT NOT NULL, variant TEXT NOT NULL,
        given_to TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, checked_at REAL NOT NULL,
        PRIMARY KEY (upstream, repository, tag, variant, given_to)
    ) WITHOUT ROWID""",
    "CREATE INDEX tags_by_digest ON tags (digest)",
    "CREATE INDEX tags_by_time ON tags (upstream, checked_at)",
    """CREATE TABLE grants (
        caller TEXT NOT NULL, upstream TEXT NOT NULL, repository TEXT NOT NULL,
        given_at REAL NOT NULL, ends_at REAL NOT NULL, kept_until REAL NOT NULL,
        PRIMARY KEY (caller, upstream, repository)
    ) WITHOUT ROWID""",
    "CREATE INDEX grants_by_end ON grants (kept_until)",
    """CREATE TABLE tokens (
        fingerprint TEXT NOT NULL PRIMARY KEY, caller TEXT NOT NULL, ends_at REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX tokens_by_end ON tokens (ends_at)",
    "CREATE TABLE stances (upstream TEXT NOT NULL PRIMARY KEY, challenges TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE usage (
        digest TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL, used_at REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE sent (
        digest TEXT NOT NULL, upstream TEXT NOT NULL, is_public INTEGER NOT NULL, PRIMARY KEY (digest, upstream)
    ) WITHOUT ROWID""",
    "CREATE INDEX usage_by_time ON usage (used_at, digest)",
    "CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    # Random, so that a new index has another epoch than the index that it replaces.
    "INSERT INTO meta VALUES ('epoch', random() & 0xffffffff)",
    *_PIN_TABLES,
)

INDEX = Schema(
    "index",
    VERSION,
    _INDEX_TABLES,
    "what it records counts as missing until it works again",
    quiet_seconds=60.0,
    # Everything else can be learnt again, but not pins: so files with pins have to be upgraded by later versions, too.
    upgrades={3: _PIN_TABLES},
)

HISTORY = Schema(
    "history",
    1,
    (
        # `numbers`: those of domain.history.Totals, as JSON.
        """CREATE TABLE buckets (
            seconds INTEGER NOT NULL, start INTEGER NOT NULL, numbers TEXT NOT NULL, PRIMARY KEY (seconds, start)
        ) WITHOUT ROWID""",
    ),
    "the history on the page may have gaps after the next start",
    quiet_seconds=float("inf"),
)
