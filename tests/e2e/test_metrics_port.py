"""`/metrics` at a port of its own, and with a login."""

import pytest

from tests.e2e.support.plain_http import fetch
from tests.e2e.support.processes import free_port
from tests.e2e.support.raw_connections import several
from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import account_entry, basic

pytestmark = pytest.mark.real()


def test_the_port_of_the_metrics_has_no_pulls_and_the_other_port_no_metrics(serve: Serving) -> None:
    port = free_port()
    with serve(METRICS_PORT=str(port), ready="/livez") as proxy:
        at_own_port = f"http://127.0.0.1:{port}"
        assert proxy.get("/metrics").status == 404
        page = fetch("GET", f"{at_own_port}/metrics")
        assert (page.status, page.headers["Cache-Control"]) == (200, "no-store")
        assert b"docker_image_proxy_build_info" in page.body
        assert fetch("GET", f"{at_own_port}/livez").status == 200
        for path in ("/v2/", "/v2/a/manifests/v1", "/v2/auth", "/v1/search?q=a", "/", "/metrics/"):
            assert fetch("GET", at_own_port + path).status == 404, path
        assert proxy.get("/v2/").status != 404


def test_the_metrics_can_be_read_while_the_other_port_has_no_connection_left(serve: Serving) -> None:
    port = free_port()
    with (
        serve(METRICS_PORT=str(port), MAX_CONNECTIONS="16", WORKERS="1", ready="/livez") as proxy,
        several(proxy.port, 40),
    ):
        page = fetch("GET", f"http://127.0.0.1:{port}/metrics")
    assert page.status == 200


def test_the_metrics_require_one_of_their_own_accounts(serve: Serving) -> None:
    accounts = {"ACCOUNTS": account_entry("alice"), "METRICS_ACCOUNTS": account_entry("bob")}
    with serve(**accounts, ready="/livez") as proxy:
        refused = proxy.get("/metrics")
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"].startswith("Basic ")
        assert proxy.get("/metrics", basic("alice")).status == 401
        assert proxy.get("/metrics", "Bearer abc").status == 401
        assert proxy.get("/metrics", basic("bob")).status == 200
