"""The page in a real Chromium, and real clients with the configurations that it shows."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.support.browser import NARROW, PROGRAM, Tab, chromium, tab
from tests.e2e.support.cached_mirror import settle
from tests.e2e.support.clients import Podman, Skopeo
from tests.e2e.support.containerd import Containerd
from tests.e2e.support.docker_registry import Registry
from tests.e2e.support.images import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.e2e.support.service import Proxy, Serving
from tests.e2e.support.upstreams import MULTI, PRIVATE, PUBLIC, Content, LoggedUpstream, account_entry, basic

pytestmark = pytest.mark.real("docker-registry")
IN_BROWSER = pytest.mark.real(PROGRAM)
TYPES = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def mirrored(serve: Serving, open_registry: Registry, content: Content) -> Iterator[Proxy]:
    """A mirror that everyone can read, with two pulled images."""
    with serve(**open_registry.settings) as proxy:
        image, multi = content.images[PUBLIC], content.multi
        for name, part in ((PUBLIC, image), (MULTI, multi.images[0])):
            pull(proxy, name, "1", *(blob.digest for blob in part.blobs))
        pull(proxy, MULTI, multi.images[0].manifest.digest)
        settle()
        yield proxy


def pull(proxy: Proxy, name: str, reference: str, *blobs: str, authorization: str | None = None) -> None:
    for path in (f"manifests/{reference}", *(f"blobs/{digest}" for digest in blobs)):
        assert proxy.get(f"/v2/{name}/{path}", authorization, **TYPES).status == 200


def paths(registry: Registry, name: str = PUBLIC) -> dict[str, str]:
    """Every view of the page."""
    place = {"registry": registry.url.partition("//")[2], "repository": name}
    return {
        "use it": "/?image=nginx:latest",
        "podman": f"/?{urlencode({'image': f'{name}:1', 'client': 'podman'})}",
        "a wrong name": "/?image=A%20B/C",
        "now": "/now",
        "pulls": "/pulls",
        "history": "/history",
        "history of a week": "/history?range=week",
        "list": "/browse",
        "search": "/browse?q=e2e",
        "search upstream": "/browse/search?q=e2e",
        "tags": f"/browse/repository?{urlencode(place)}",
        "image": f"/browse/image?{urlencode(place | {'reference': '1'})}",
        "several platforms": f"/browse/image?{urlencode(place | {'repository': MULTI, 'reference': '1'})}",
    }


@IN_BROWSER
@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": NARROW}, {"locale": "zh-CN"}, {"java_script_enabled": False}],
    ids=["light", "dark", "narrow", "Chinese", "without JavaScript"],
)
def test_no_view_has_barriers_messages_or_foreign_requests(
    browser: Browser, mirrored: Proxy, open_registry: Registry, options: dict[str, object]
) -> None:
    with tab(browser, mirrored.url, **options) as shown:
        for view, path in paths(open_registry).items():
            assert shown.open(path) == 200, view
            if options.get("java_script_enabled") is not False:
                assert shown.barriers() == [], view
                assert shown.overflow() <= 0, view
            lang = shown.page.locator("html").get_attribute("lang")
            assert lang == ("zh-Hans" if "locale" in options else "en")
            assert shown.messages == [], view
            assert shown.foreign_requests == [], view


@IN_BROWSER
def test_the_open_details_have_no_barriers(browser: Browser, mirrored: Proxy, open_registry: Registry) -> None:
    with tab(browser, mirrored.url) as shown:
        shown.open(paths(open_registry)["image"])
        summaries = shown.page.locator("summary")
        assert summaries.count() > 0
        for number in range(summaries.count()):
            summaries.nth(number).click()
        assert shown.barriers() == []


@IN_BROWSER
def test_a_copy_button_copies_the_text(browser: Browser, mirrored: Proxy) -> None:
    with tab(browser, mirrored.url, permissions=["clipboard-read", "clipboard-write"]) as shown:
        shown.open("/?image=quay.io/a/b&client=crane")
        button = shown.page.get_by_role("button", name="Copy").first
        text = shown.page.locator("pre code").first.text_content()
        button.click()
        expect(shown.page.get_by_role("button", name="Copied")).to_be_visible()
        assert shown.page.evaluate("navigator.clipboard.readText()") == text


@IN_BROWSER
def test_without_javascript_there_are_no_copy_buttons_and_forms_work(browser: Browser, mirrored: Proxy) -> None:
    with tab(browser, mirrored.url, java_script_enabled=False) as shown:
        shown.open("/")
        expect(shown.page.locator("button.copy").first).to_be_hidden()
        shown.page.get_by_label("Image").fill("team/app:7")
        shown.page.get_by_role("button", name="Show commands").click()
        expect(shown.page.locator("main")).to_contain_text(f"docker pull {mirrored.host}/team/app:7")
        shown.page.get_by_role("link", name="crane").click()
        expect(shown.page.locator("main")).to_contain_text(f"crane digest --insecure {mirrored.host}/team/app:7")


@IN_BROWSER
def test_the_page_works_by_keyboard(browser: Browser, mirrored: Proxy) -> None:
    with tab(browser, mirrored.url) as shown:
        shown.open("/")
        press(shown, "Tab", "Enter")  # the link that skips the navigation
        press(shown, "Tab")
        shown.page.keyboard.type("team/app:7")
        press(shown, "Enter")
        expect(shown.page.locator("main")).to_contain_text(f"docker pull {mirrored.host}/team/app:7")


@IN_BROWSER
def test_a_new_pull_appears_in_the_open_list(browser: Browser, mirrored: Proxy) -> None:
    with tab(browser, mirrored.url) as shown:
        shown.open("/pulls")
        rows = shown.page.locator("main tbody tr")
        before = rows.count()
        pull(mirrored, PUBLIC, "1")
        expect(rows).to_have_count(before + 1)
        expect(rows.first).to_contain_text(f"{PUBLIC}:1")
        assert shown.barriers() == []
        assert shown.messages == []


def press(shown: Tab, *keys: str) -> None:
    for key in keys:
        shown.page.keyboard.press(key)


@IN_BROWSER
def test_an_image_is_found_by_clicking(browser: Browser, mirrored: Proxy, content: Content) -> None:
    with tab(browser, mirrored.url) as shown:
        shown.open("/")
        shown.page.get_by_role("link", name="Browse").click()
        shown.page.get_by_role("link", name=PUBLIC).click()
        shown.page.get_by_role("link", name="1", exact=True).click()
        expect(shown.page.locator("main")).to_contain_text(content.images[PUBLIC].manifest.digest)
        expect(shown.page.locator("table .badge.good")).to_have_count(len(content.images[PUBLIC].layers))
        shown.page.get_by_role("button", name="Commands").click()
        expect(shown.page.locator("main")).to_contain_text(f"docker pull {mirrored.host}/{PUBLIC}:1")


@IN_BROWSER
def test_the_registry_is_searched_after_the_cache(browser: Browser, mirrored: Proxy) -> None:
    with tab(browser, mirrored.url) as shown:
        shown.open("/browse")
        shown.page.get_by_label("Search for images").fill("e2e-single")
        shown.page.get_by_role("button", name="Search").click()
        expect(shown.page.locator(".results")).to_contain_text("library/e2e-single-segment")
        assert shown.messages == []


@IN_BROWSER
def test_a_login_shows_what_the_account_may_see(
    browser: Browser, serve: Serving, open_registry: Registry, content: Content
) -> None:
    settings = {**open_registry.settings, "ACCOUNTS": account_entry("alice"), "UPSTREAM_IDENTITY": "anonymous"}
    with serve(**settings) as proxy:
        pull(proxy, PUBLIC, "1", content.images[PUBLIC].layers[0].digest, authorization=basic("alice"))
        settle()
        with tab(browser, proxy.url) as shown:
            shown.open("/browse")
            assert PUBLIC not in shown.page.content()
            expect(shown.page.get_by_role("link", name="Log in", exact=True)).to_be_visible()
        with tab(browser, proxy.url, http_credentials={"username": "alice", "password": "alice-pass"}) as shown:
            shown.open("/login")
            assert shown.page.url == f"{proxy.url}/"
            shown.page.get_by_role("link", name="Browse").click()
            expect(shown.page.locator("main")).to_contain_text(PUBLIC)
            expect(shown.page.locator(".user")).to_have_text("alice")
            assert shown.barriers() == []


# --- who sees what, without a browser ---


def shows(proxy: Proxy, name: str, authorization: str | None = None) -> set[str]:
    """Which views of the page show something of the repository. Asks each worker."""
    found = set()
    query = urlencode({"registry": "", "repository": name, "reference": "1"})
    views = {"list": "/browse", "search": f"/browse?{urlencode({'q': name})}"}
    views |= {"tags": f"/browse/repository?{query}", "image": f"/browse/image?{query}"}
    for _ in range(4):
        for view, path in views.items():
            answer = proxy.get(path, authorization)
            assert answer.status in (200, 404)
            if answer.status == 200 and f"/{name}" in answer.body.decode().replace("</span>", "").replace("%2F", "/"):
                found.add(view)
            if view in ("tags", "image") and answer.status == 200:
                found.add(view)
    return found


def test_private_content_of_alice_is_on_no_page(serve: Serving, spied_token: LoggedUpstream, content: Content) -> None:
    with serve(**spied_token.settings) as proxy:
        alices = f"Bearer {proxy.token(f'repository:{PRIVATE}:pull', 'alice')}"
        pull(proxy, PRIVATE, "1", content.images[PRIVATE].layers[0].digest, authorization=alices)
        anyones = f"Bearer {proxy.token(f'repository:{PUBLIC}:pull')}"
        pull(proxy, PUBLIC, "1", authorization=anyones)
        settle()
        since = spied_token.mark()
        for authorization in (None, basic("alice"), basic("bob"), alices):
            assert shows(proxy, PRIVATE, authorization) == set()
            assert shows(proxy, PUBLIC, authorization) >= {"list", "tags", "image"}
        assert [one for one in spied_token.content_requests(since) if "/manifests/" in one.path] == []


def test_with_accounts_each_account_sees_what_it_may_pull(
    serve: Serving, spied_htpasswd: LoggedUpstream, content: Content, tmp_path: Path
) -> None:
    rules = tmp_path / "mirror.toml"
    rules.write_text(
        f'accounts = "{account_entry("alice")},{account_entry("bob")}"\n'
        f'upstream_registry = "{spied_htpasswd.url}"\n'
        'upstream_username = "alice"\nupstream_password = "alice-pass"\n'
        '[[rules]]\ndeny = ["private/**"]\naccounts = ["bob"]\n'
        '[[rules]]\nallow = ["**"]\naccounts = ["*"]\n'
    )
    with serve(CONFIG=str(rules)) as proxy:
        for name in (PRIVATE, PUBLIC):
            pull(proxy, name, "1", content.images[name].layers[0].digest, authorization=basic("alice"))
        settle()
        for name in (PRIVATE, PUBLIC):
            assert shows(proxy, name) == set()
            assert shows(proxy, name, basic("alice")) >= {"list", "tags", "image"}
        assert shows(proxy, PUBLIC, basic("bob")) >= {"list", "tags", "image"}
        assert shows(proxy, PRIVATE, basic("bob")) == set()
        assert proxy.get("/browse", basic("alice", "wrong")).status == 401


# --- the configurations, with real clients ---


def snippets(proxy: Proxy, client: str, image: str) -> list[str]:
    """The texts that the page shows for the client."""
    page = proxy.get(f"/?{urlencode({'client': client, 'image': image})}").body.decode()
    return [unescape(text) for text in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", page, re.DOTALL)]


@pytest.fixture(scope="module")
def hub(serve: Serving, open_registry: Registry, workplace: Path) -> Iterator[Proxy]:
    """A mirror of two registries; the first has the name of Docker Hub."""
    file = workplace / "page-hub.toml"
    file.write_text(
        f'[[upstreams]]\nname = "docker.io"\nurl = "{open_registry.url}"\nlibrary = true\n'
        f'[[upstreams]]\nname = "quay.io"\nurl = "{open_registry.url.replace("127.0.0.1", "localhost")}"\n'
    )
    with serve(CONFIG=str(file)) as proxy:
        yield proxy


@pytest.mark.real("podman")
@pytest.mark.parametrize("registry", ["docker.io", "quay.io"])
def test_podman_pulls_with_the_configuration_of_the_page(
    podman: Podman, hub: Proxy, content: Content, registry: str
) -> None:
    image = f"{registry}/{PUBLIC}:1"
    configuration, command = snippets(hub, "podman", image)
    file = podman.home / "registries.conf"
    file.write_text(configuration)
    assert command.split() == ["podman", "pull", image]
    podman(*command.split()[1:], registries=file).ok()
    assert podman.inspect(image)["Digest"] == content.images[PUBLIC].manifest.digest


@pytest.mark.real("skopeo")
def test_skopeo_copies_by_the_name_of_the_mirror(skopeo: Skopeo, hub: Proxy, content: Content) -> None:
    [*_, command] = snippets(hub, "docker", f"quay.io/{PUBLIC}:1")
    assert command.startswith("docker pull ")
    skopeo.copy(command.split()[-1]).ok()
    assert skopeo.copied_digests() == {
        content.images[PUBLIC].manifest.digest, *content.images[PUBLIC].blob_digests
    }  # fmt: skip


@pytest.mark.real("containerd", "ctr")
@pytest.mark.parametrize("registry", ["docker.io", "quay.io"])
def test_containerd_pulls_with_the_configuration_of_the_page(
    ctr: Containerd, hub: Proxy, content: Content, registry: str
) -> None:
    [configuration, *_] = snippets(hub, "containerd", f"{registry}/{PUBLIC}:1")
    ctr.configure(registry, configuration)
    ctr.fetch(f"{registry}/{PUBLIC}:1").ok()
    assert content.images[PUBLIC].manifest.digest in ctr.digests()
