BEGIN TRANSACTION;
CREATE TABLE grants (
        caller TEXT NOT NULL, upstream TEXT NOT NULL, repository TEXT NOT NULL,
        given_at REAL NOT NULL, ends_at REAL NOT NULL, kept_until REAL NOT NULL,
        PRIMARY KEY (caller, upstream, repository)
    ) WITHOUT ROWID;
INSERT INTO "grants" VALUES('anonymous','https://hub.test','library/nginx',1800000002.5,1800003600.0,1800086400.0);
CREATE TABLE links (
        upstream TEXT NOT NULL, repository TEXT NOT NULL, kind TEXT NOT NULL, digest TEXT NOT NULL,
        given_to TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER, given_at REAL NOT NULL,
        PRIMARY KEY (upstream, repository, kind, digest, given_to)
    ) WITHOUT ROWID;
INSERT INTO "links" VALUES('https://hub.test','library/nginx','blob','sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73','anonymous','application/octet-stream',7,1800000000.5);
INSERT INTO "links" VALUES('https://hub.test','library/nginx','blob','sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73','personal','application/octet-stream',7,1800000000.5);
CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('epoch',115797009);
CREATE TABLE sent (
        digest TEXT NOT NULL, upstream TEXT NOT NULL, is_public INTEGER NOT NULL, PRIMARY KEY (digest, upstream)
    ) WITHOUT ROWID;
INSERT INTO "sent" VALUES('sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73','https://hub.test',1);
CREATE TABLE stances (upstream TEXT NOT NULL PRIMARY KEY, challenges TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "stances" VALUES('https://hub.test','[["Bearer", [["realm", "https://auth.test/token"]]]]');
CREATE TABLE tags (
        upstream TEXT NOT NULL, repository TEXT NOT NULL, tag TEXT NOT NULL, variant TEXT NOT NULL,
        given_to TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, checked_at REAL NOT NULL,
        PRIMARY KEY (upstream, repository, tag, variant, given_to)
    ) WITHOUT ROWID;
INSERT INTO "tags" VALUES('https://hub.test','library/nginx','1.25','application/json','anonymous','sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73','application/json',1800000001.5);
CREATE TABLE tokens (
        fingerprint TEXT NOT NULL PRIMARY KEY, caller TEXT NOT NULL, ends_at REAL NOT NULL
    ) WITHOUT ROWID;
INSERT INTO "tokens" VALUES('fingerprint','anonymous',1800000300.0);
CREATE TABLE usage (
        digest TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL, used_at REAL NOT NULL
    ) WITHOUT ROWID;
INSERT INTO "usage" VALUES('sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73',7,1800000003.5);
CREATE INDEX links_by_digest ON links (digest);
CREATE INDEX links_by_time ON links (upstream, given_at);
CREATE INDEX tags_by_digest ON tags (digest);
CREATE INDEX tags_by_time ON tags (upstream, checked_at);
CREATE INDEX grants_by_end ON grants (kept_until);
CREATE INDEX tokens_by_end ON tokens (ends_at);
CREATE INDEX usage_by_time ON usage (used_at, digest);
COMMIT;
