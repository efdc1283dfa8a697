"""The access log has one line per request, with the account and the path, and without credentials or tokens."""

import pytest

from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import ACCOUNTS, PRIVATE, Content, TokenUpstream, account_entry, basic

pytestmark = pytest.mark.real("docker-registry")


def test_each_request_is_logged_in_one_line_without_credentials(
    serve: Serving, token_registry: TokenUpstream, content: Content
) -> None:
    blob = content.images[PRIVATE].layers[0]
    path = f"/v2/{PRIVATE}/blobs/{blob.digest}"
    with serve(**token_registry.settings, ACCOUNTS=account_entry("alice"), LOG_LEVEL="debug") as proxy:
        token = proxy.token(f"repository:{PRIVATE}:pull", "alice")
        assert proxy.get(path, f"Bearer {token}").body == blob.content
        assert proxy.get(f"{path}?token={token}", basic("alice", "wrong-password")).status == 401
        assert proxy.get("/v1/search?q=e2e", basic("alice")).status == 200
        lines = [entry for entry in proxy.accesses() if entry["path"].startswith(path)]
        whole = proxy.process.log.read_text()
    # Each worker writes its own lines, so the order of two lines is not fixed.
    given, refused = sorted(lines, key=lambda entry: entry["status"])
    assert (given["method"], given["status"], given["bytes"]) == ("GET", 200, len(blob.content))
    assert (given["upstream_status"], given["account"]) == (200, "alice")
    assert 0 < given["seconds"] < 30
    assert (refused["status"], refused["upstream_status"]) == (401, None)
    for secret in (*token.split("~"), ACCOUNTS["alice"], account_entry("alice"), "wrong-password"):
        assert secret not in whole
        assert secret.rpartition(".")[2] not in whole, "the signature of a token must not be logged either"
