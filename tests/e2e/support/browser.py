"""A real Chromium that looks at the page."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from tests.e2e.support.processes import program

PROGRAM = "chromium-headless-shell"
_WAIT = 30_000
"""Milliseconds that a test waits for what the page will show: a reload of the settings takes seconds on a loaded
machine.
"""
WIDE, NARROW = {"width": 1200, "height": 800}, {"width": 375, "height": 720}


@dataclass
class Tab:
    """A page in the browser, with everything that it logs and requests."""

    page: Page
    address: str
    has_scripts: bool = True
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: str) -> int:
        """The status of the page. Returns when the page and what it loads by itself are there."""
        answer = self.page.goto(self.address + path)
        assert answer is not None
        if self.has_scripts:
            expect(self.page.locator("[data-hx-trigger=load]")).to_have_count(0)
        return answer.status

    def barriers(self) -> list[str]:
        """What axe-core finds."""
        self._has_styles()
        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]

    def overflow(self) -> int:
        """How many pixels the page is wider than the window."""
        self._has_styles()
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def _has_styles(self) -> None:
        """Wait until the page is loaded: its text is there before its style sheets."""
        self.page.wait_for_load_state("load")

    @property
    def foreign_requests(self) -> list[str]:
        return [url for url in self.requests if not url.startswith((self.address, "data:"))]


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=_WAIT)
    with sync_playwright() as playwright:
        # uPlot fails in the locale of LANG=C.
        browser = playwright.chromium.launch(executable_path=program(PROGRAM), env={"LANG": "en_US.UTF-8"})
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(browser: Browser, address: str, **options: Any) -> Iterator[Tab]:
    """A page in a session of its own: `locale`, `color_scheme`, `viewport`, `java_script_enabled`."""
    context: BrowserContext = browser.new_context(**{"locale": "en-US", "viewport": WIDE} | options)
    found = Tab(context.new_page(), address, options.get("java_script_enabled", True))

    def log(request: Request) -> None:
        found.requests.append(request.url)

    found.page.on("console", lambda message: found.messages.append(f"{message.type}: {message.text}"))
    found.page.on("pageerror", lambda error: found.messages.append(str(error)))
    found.page.on("request", log)
    try:
        yield found
    finally:
        context.close()
