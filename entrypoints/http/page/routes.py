"""Routes of the page: its sections, their style sheets and scripts, and the login."""

from functools import partial
from http import HTTPStatus

from sanic import Blueprint, HTTPResponse, Request
from sanic.exceptions import NotFound

from domain.access import ANONYMOUS
from domain.errors import CredentialsRejected, RegistryError
from entrypoints.http.page.assets import PATH
from entrypoints.http.page.event_streams import send_events
from entrypoints.http.page.languages import language_for
from entrypoints.http.page.section import Context, PageRequest, Section, View
from entrypoints.http.page.sections.browse import BROWSE
from entrypoints.http.page.sections.history import HISTORY
from entrypoints.http.page.sections.now import NOW
from entrypoints.http.page.sections.recent_pulls import RECENT_PULLS
from entrypoints.http.page.sections.use_it import USE_IT
from entrypoints.http.responses.error_responses import error_response
from entrypoints.http.routes.pull_routes import READ, caller_of
from entrypoints.http.runtime import runtime_of
from entrypoints.version import VERSION

SECTIONS: tuple[Section, ...] = (USE_IT, NOW, RECENT_PULLS, HISTORY, BROWSE)
"""In the order of the navigation."""

# Pico's icons are data: images.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_OF_PAGE = {"Cache-Control": "no-store", "Vary": "Accept-Language, Authorization"}
"""Not compressed: the length of a compressed page that repeats what the viewer typed can reveal the rest of it."""
_OF_ASSET = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}


async def show(request: Request, section: Section, view: View) -> HTTPResponse:
    """One view of a section."""
    _require_page(request)
    try:
        page = await _page_request(request)
        context = await view.context(page)
    except RegistryError as error:
        return await _problem(request, error)
    return await _html(request, view.template, {"page": page, "current": section.name, **context})


async def events(request: Request, view: View) -> HTTPResponse | None:
    """The live part of a view, again whenever it has changed."""
    _require_page(request)
    runtime = runtime_of(request)
    try:
        page = await _page_request(request)
    except RegistryError as error:
        return await _problem(request, error)
    renderer = await runtime.page.renderer()
    accept_language = request.headers.get("accept-language", "")
    # Viewers with the same account, language and address see the same.
    key = (view.path, page.viewer.account, language_for(accept_language), page.hint, page.scheme, page.host)

    async def render() -> str:
        return renderer.render(view.live, accept_language, {"page": page, **await view.context(page)})

    await send_events(request, page.viewer, _HEADERS | _OF_PAGE, lambda: runtime.page.shared.get(key, render))
    return None


async def login(request: Request) -> HTTPResponse:
    """Makes the browser ask for a login, which it then sends with each request for the page."""
    _require_page(request)
    if not runtime_of(request).settings.has_accounts:
        raise _not_found(request)
    try:
        page = await _page_request(request)
        if page.viewer.account == ANONYMOUS:
            raise CredentialsRejected("log in with an account of this mirror")
    except RegistryError as error:
        return await _problem(request, error)
    return HTTPResponse(None, 303, {**_HEADERS, **_OF_PAGE, "Location": "/"})


async def static(request: Request, name: str) -> HTTPResponse:
    """A style sheet or script. Its name changes with its content."""
    _require_page(request)
    asset = (await runtime_of(request).page.renderer()).assets.find(name)
    if asset is None:
        raise _not_found(request)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers = {**_HEADERS, **_OF_ASSET, "Content-Encoding": "gzip"}
        return HTTPResponse(asset.compressed, 200, headers, asset.media_type)
    return HTTPResponse(asset.content, 200, {**_HEADERS, **_OF_ASSET}, asset.media_type)


def _require_page(request: Request) -> None:
    """Raises NotFound if the settings turn the page off."""
    if runtime_of(request).settings.page == "off":
        raise _not_found(request)


def _not_found(request: Request) -> NotFound:
    """As Sanic raises it for a path without a route."""
    return NotFound(f"Requested URL {request.path} not found")


async def _page_request(request: Request) -> PageRequest:
    """Raises CredentialsRejected for a wrong login, TooManyAttempts, RequestInvalid for an invalid Host."""
    runtime = runtime_of(request)
    viewer = await runtime.container.identify_viewer()(caller_of(request))
    scheme, _, host = runtime.addresses.address_of(request).partition("://")
    hint = runtime.container.upstreams().hint_of(host=runtime.addresses.host_of(request))
    arguments = {name: values[0] for name, values in request.get_args().items()}
    return PageRequest(viewer, hint, scheme, host, arguments, runtime.settings, runtime.container)


async def _problem(request: Request, error: RegistryError) -> HTTPResponse:
    """The page for an error, with the status and the headers that the registry API gives to the same error."""
    answer = error_response(error, runtime_of(request).settings.self_auth_service)
    context = {"page": None, "current": "", "message": error.message, "status": HTTPStatus(answer.status)}
    shown = await _html(request, "problem.html", context)
    shown.status = answer.status
    for name, value in answer.headers.items():
        if name.lower() not in {"cache-control", "content-type"}:
            shown.headers.add(name, value)
    return shown


async def _html(request: Request, template: str, context: Context) -> HTTPResponse:
    renderer = await runtime_of(request).page.renderer()
    navigation = [(one.name, one.views[0].path) for one in SECTIONS]
    has_accounts = runtime_of(request).settings.has_accounts
    everywhere = {"navigation": navigation, "version": VERSION, "has_accounts": has_accounts}
    text = renderer.render(template, request.headers.get("accept-language", ""), {**everywhere, **context})
    return HTTPResponse(text, 200, {**_HEADERS, **_OF_PAGE}, "text/html; charset=utf-8")


pages = Blueprint("pages")
for _section in SECTIONS:
    for _view in _section.views:
        pages.add_route(partial(show, section=_section, view=_view), _view.path, methods=READ, name=f"page{_view.path}")
        if _view.live:
            pages.add_route(partial(events, view=_view), f"{_view.path}/events", name=f"events{_view.path}")
pages.add_route(login, "/login", methods=READ)
pages.add_route(static, f"{PATH}<name:str>", methods=READ)
