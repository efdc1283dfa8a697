"""An operator purges and reloads on the page of a real service with two workers."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import bcrypt
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.support.browser import NARROW, PROGRAM, chromium, tab
from tests.e2e.support.cached_mirror import settle
from tests.e2e.support.docker_registry import Registry
from tests.e2e.support.images import DOCKER_MANIFEST, OCI_MANIFEST
from tests.e2e.support.plain_http import UpstreamResponse, fetch, send
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import Proxy, Serving, command, environment
from tests.e2e.support.upstreams import PUBLIC, Content, account_entry, basic

pytestmark = pytest.mark.real("docker-registry")
OLGA = basic("olga", "olga-pass")
OPERATORS = f"# operators, by name\nolga:{bcrypt.hashpw(b'olga-pass', bcrypt.gensalt(4)).decode()}\n"
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": OLGA}

SHOWN = ["light", "dark", "narrow", "Chinese", "without JavaScript"]


@pytest.fixture
def mirror(serve: Serving, open_registry: Registry, tmp_path: Path) -> Iterator[Proxy]:
    operators, accounts = tmp_path / "operators", tmp_path / "accounts"
    operators.write_text(OPERATORS)
    accounts.write_text(account_entry("alice"))
    settings = {**open_registry.settings, "ACCOUNTS_FILE": str(accounts), "UPSTREAM_IDENTITY": "anonymous"}
    with serve(**settings, ADMIN_ACCOUNTS_FILE=str(operators), CACHE_DIR=str(tmp_path / "cache")) as proxy:
        yield proxy


def token(proxy: Proxy) -> str:
    answer = proxy.get("/admin", OLGA)
    assert answer.status == 200
    return re.findall(r'name="token" value="([^"]+)"', answer.body.decode())[0]


def post(proxy: Proxy, path: str, fields: dict[str, str], **headers: str) -> UpstreamResponse:
    return fetch("POST", proxy.url + path, {**FORM, **headers}, urlencode(fields).encode())


def audits(proxy: Proxy) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in proxy.process.settled_lines(0) if line.startswith("{")]
    return [line for line in lines if line.get("event") == "OperatorActed"]


def pull(proxy: Proxy) -> None:
    assert (
        proxy.get(f"/v2/{PUBLIC}/manifests/1", basic("alice"), Accept=f"{OCI_MANIFEST}, {DOCKER_MANIFEST}").status
        == 200
    )
    settle()


def test_a_purge_on_one_worker_counts_on_all(mirror: Proxy, open_registry: Registry, content: Content) -> None:
    pull(mirror)
    place = {"registry": open_registry.url.partition("//")[2], "repository": PUBLIC, "reference": "1"}
    preview = mirror.get(f"/admin/purge?{urlencode(place)}", OLGA).body.decode()
    assert content.images[PUBLIC].manifest.digest[:19] in preview
    fields = {"token": token(mirror), **place}
    for forged in ({**fields, "token": "x"}, place):
        assert post(mirror, "/admin/purge", forged).status == 403
    assert post(mirror, "/admin/purge", fields, Origin="http://evil.example").status == 403
    assert "Manifests and blobs: 0" not in mirror.get(f"/admin/purge?{urlencode(place)}", OLGA).body.decode()
    done = post(mirror, "/admin/purge", fields)
    assert (done.status, done.headers["Location"]) == (303, "/admin?removed=1")
    with mirror.connection_to_each_worker() as workers:
        for worker in workers:
            shown = send(worker, "GET", f"/admin/purge?{urlencode(place)}", {"Authorization": OLGA})
            assert b"Manifests and blobs: 0" in shown.body
    [audit] = audits(mirror)
    expected = {"operator": "olga", "address": "127.0.0.1", "action": "purge", "result": "1 removed"}
    assert expected.items() <= audit.items()
    assert audit["subject"] == f"{place['registry']}/{PUBLIC}:1"
    assert "olga-pass" not in json.dumps(audit)


def test_a_reload_and_its_result_are_shown_by_all_workers(mirror: Proxy, tmp_path: Path) -> None:
    accounts = tmp_path / "accounts"
    for text, said in (
        (account_entry("bob"), "settings reloaded; changed: ACCOUNTS"),
        ("nothing", "settings not reloaded, the old ones stay in force: ACCOUNTS: entry 1"),
    ):
        accounts.write_text(text)
        assert post(mirror, "/admin/reload", {"token": token(mirror)}).status == 303
        with mirror.connection_to_each_worker() as workers:
            for worker in workers:
                assert said in send(worker, "GET", "/admin", {"Authorization": OLGA}).body.decode()
                assert send(worker, "GET", "/browse", {"Authorization": basic("alice")}).status == 401
                assert send(worker, "GET", "/browse", {"Authorization": basic("bob")}).status == 200
    assert wait_until(lambda: [one["action"] for one in audits(mirror)] == ["reload", "reload"], 15)


def test_an_operator_pulls_nothing_and_an_account_administers_nothing(mirror: Proxy) -> None:
    assert mirror.get(f"/v2/{PUBLIC}/manifests/1", OLGA, Accept=OCI_MANIFEST).status == 401
    assert mirror.ask_token(f"repository:{PUBLIC}:pull", OLGA).status == 401
    alices = {**FORM, "Authorization": basic("alice")}
    assert mirror.get("/admin", basic("alice")).status == 401
    assert fetch("POST", f"{mirror.url}/admin/reload", alices, b"token=x").status == 401
    assert audits(mirror) == []


def test_the_explanation_of_a_pull_is_what_the_pull_gets(mirror: Proxy, open_registry: Registry) -> None:
    image = f"{open_registry.url.partition('//')[2]}/{PUBLIC}:1"
    for account, status, said in (
        ("", 401, "login_needed"),
        ("bob", 401, "account_unknown"),
        ("alice", 200, "allowed"),
    ):
        login = basic(account) if account else None
        assert (
            mirror.get(f"/v2/{PUBLIC}/manifests/1", login, Accept=f"{OCI_MANIFEST}, {DOCKER_MANIFEST}").status == status
        )
        asked = {"token": token(mirror), "image": image, "account": account, "address": "127.0.0.1"}
        answer = post(mirror, "/admin/why", asked)
        assert answer.status == 200
        assert ("badge good" in answer.body.decode()) == (status == 200)
        assert audits(mirror)[-1]["result"].endswith(f": {said}")
    # Only in the audit line, and not in the access log.
    named = [line for line in mirror.process.settled_lines(0) if PUBLIC in line and "/admin" in line]
    assert named == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.mark.real(PROGRAM)
@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": NARROW}, {"locale": "zh-CN"}, {"java_script_enabled": False}],
    ids=SHOWN,
)
def test_an_operator_purges_reloads_verifies_and_warms_in_a_browser(
    browser: Browser, mirror: Proxy, options: dict[str, object]
) -> None:
    pull(mirror)
    has_scripts, is_english = options.get("java_script_enabled") is not False, "locale" not in options
    with tab(browser, mirror.url, http_credentials={"username": "olga", "password": "olga-pass"}, **options) as shown:

        def check() -> None:
            assert shown.messages == []
            assert shown.foreign_requests == []
            if has_scripts:
                assert shown.barriers() == []
                assert shown.overflow() <= 0

        assert shown.open("/admin") == 200
        check()
        shown.page.locator("#repository").fill(PUBLIC)
        shown.page.locator("form[action='/admin/purge']").first.locator("button").click()
        expect(shown.page.locator("main tbody tr")).to_have_count(1)
        check()
        shown.page.locator("form[method=post] button").click()
        expect(shown.page.locator("[role=status]")).to_contain_text("removed: 1." if is_english else "1 个")
        check()
        shown.page.locator("form[action='/admin/reload'] button").click()
        expect(shown.page.locator("main")).to_contain_text("settings reloaded; changed: none")
        check()
        shown.page.locator("form[action='/admin/verify'] button").click()
        shown.page.wait_for_url("**/admin/job")
        if not has_scripts:
            settle()
            shown.open("/admin/job")
        expect(shown.page.locator(".job .badge.good")).to_have_text("done" if is_english else "已完成")
        expect(shown.page.locator("form[action='/admin/job/cancel']")).to_be_hidden()
        check()
        shown.open("/admin")
        check()
        shown.page.locator("#warm-image").fill(f"{PUBLIC}:1")
        shown.page.locator("form[action='/admin/warm'] button").click()
        shown.page.wait_for_url("**/admin/job")
        if not has_scripts:
            settle()
            shown.open("/admin/job")
        expect(shown.page.locator(".job")).to_contain_text(f"{PUBLIC}:1")
        expect(shown.page.locator(".job .badge.good")).to_have_text("done" if is_english else "已完成")
        check()
        shown.open("/admin")
        shown.page.locator("#image").fill(f"{PUBLIC}:1")
        shown.page.locator("#account").fill("alice")
        shown.page.locator("#address").fill("192.0.2.1")
        shown.page.locator("form[action='/admin/why'] button").click()
        expect(shown.page.locator("[role=status] .badge.good")).to_have_text("allowed" if is_english else "允许")
        assert "alice" not in shown.page.url
        check()


@pytest.mark.real(PROGRAM)
@pytest.mark.parametrize(
    "options", [{}, {"color_scheme": "dark"}, {"viewport": NARROW}, {"locale": "zh-CN"}], ids=SHOWN[:4]
)
def test_the_purge_of_a_pinned_image_is_refused_in_a_browser(
    browser: Browser, mirror: Proxy, open_registry: Registry, tmp_path: Path, options: dict[str, object]
) -> None:
    environ = environment(1, {**open_registry.settings, "CACHE_DIR": str(tmp_path / "cache")})
    subprocess.run(command("cache", "pin", f"{PUBLIC}:1"), env=environ, capture_output=True, timeout=60, check=True)
    with tab(browser, mirror.url, http_credentials={"username": "olga", "password": "olga-pass"}, **options) as shown:
        assert shown.open("/admin") == 200
        shown.page.locator("#repository").fill(PUBLIC)
        shown.page.locator("form[action='/admin/purge']").first.locator("button").click()
        expect(shown.page.locator("[role=alert]")).to_contain_text("固定" if "locale" in options else "Unpin it first.")
        expect(shown.page.locator("form[method=post]")).to_have_count(0)
        assert shown.messages == []
        assert shown.barriers() == []
        assert shown.overflow() <= 0


@pytest.mark.real(PROGRAM)
@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": NARROW}, {"locale": "zh-CN"}, {"java_script_enabled": False}],
    ids=SHOWN,
)
def test_an_operator_pins_and_unpins_in_a_browser(browser: Browser, mirror: Proxy, options: dict[str, object]) -> None:
    """The workers fetch the image soon after it was pinned."""
    has_scripts, is_english = options.get("java_script_enabled") is not False, "locale" not in options
    complete, none = ("complete", "No image is pinned.") if is_english else ("完整", "没有固定的镜像。")
    with tab(browser, mirror.url, http_credentials={"username": "olga", "password": "olga-pass"}, **options) as shown:

        def check() -> None:
            assert shown.messages == []
            assert shown.foreign_requests == []
            if has_scripts:
                assert shown.barriers() == []
                assert shown.overflow() <= 0

        assert shown.open("/admin") == 200
        shown.page.locator("a[href='/admin/pins']").click()
        expect(shown.page.locator("main")).to_contain_text(none)
        check()
        for image in (f"{PUBLIC}:1", "team/absent:1"):
            shown.page.locator("#pin-image").fill(image)
            shown.page.locator("form[action='/admin/pins'] button").click()
            expect(shown.page.locator("tbody")).to_contain_text(image)
        check()

        def is_checked() -> bool:
            shown.open("/admin/pins")
            return (
                shown.page.locator("tbody .badge.good").count() == shown.page.locator("tbody .badge.bad").count() == 1
            )

        assert wait_until(is_checked, 30)
        expect(shown.page.locator("tbody .badge.good")).to_have_text(complete)
        check()
        shown.open(f"/browse/image?{urlencode({'repository': PUBLIC, 'reference': '1'})}")
        expect(shown.page.locator("h1 .badge")).to_have_text("pinned" if is_english else "已固定")
        check()
        shown.open("/admin/pins")
        for _ in range(2):
            shown.page.locator("form[action='/admin/pins/unpin'] button").first.click()
        expect(shown.page.locator("main")).to_contain_text(none)
    assert [one["action"] for one in audits(mirror)] == ["pin", "pin", "unpin", "unpin"]
