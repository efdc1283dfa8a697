"""Routes of the page: its sections, their style sheets and scripts, and the login."""

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus

from sanic import Blueprint, HTTPResponse, Request
from sanic.exceptions import NotFound

from application.page.viewer import Viewer
from domain.access import ANONYMOUS
from domain.errors import CredentialsRejected, RegistryError, RequestInvalid
from entrypoints.http.page.assets import PATH
from entrypoints.http.page.event_streams import send_events
from entrypoints.http.page.form_checks import FIELD, check_origin, check_token, make_token
from entrypoints.http.page.languages import language_for
from entrypoints.http.page.section import Action, Context, PageRequest, Question, Section, View
from entrypoints.http.page.sections.administration import ADMINISTRATION
from entrypoints.http.page.sections.browse import BROWSE
from entrypoints.http.page.sections.history import HISTORY
from entrypoints.http.page.sections.now import NOW
from entrypoints.http.page.sections.recent_pulls import RECENT_PULLS
from entrypoints.http.page.sections.use_it import USE_IT
from entrypoints.http.requests.forms import form_of
from entrypoints.http.responses.error_responses import error_response
from entrypoints.http.routes.pull_routes import READ, caller_of
from entrypoints.http.runtime import runtime_of
from entrypoints.version import VERSION

SECTIONS: tuple[Section, ...] = (USE_IT, NOW, RECENT_PULLS, HISTORY, BROWSE, ADMINISTRATION)
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
_OF_FORM = {"Referrer-Policy": "same-origin"}
"""Of pages with actions: with `no-referrer`, the Origin of a form is `null` (Fetch standard, "append a request Origin
header").
"""
_OF_ASSET = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}


async def show(request: Request, section: Section, view: View) -> HTTPResponse:
    """One view of a section."""
    _require_section(request, section)
    try:
        page = await _page_request(request)
        _require_viewer(page.viewer, is_for_operators=section.is_for_operators)
        context = {"page": page, "current": section.name, "token": _form_token(page), **await view.context(page)}
    except RegistryError as error:
        return await _problem(request, error)
    return await _shown(request, section, view.template, context)


async def act(request: Request, section: Section, action: Action) -> HTTPResponse:
    """The action of a form. Answered by 303, so that a reload of the next page does not repeat it."""
    _require_section(request, section)
    try:
        target = await action.act(await _checked_form(request, section))
    except RegistryError as error:
        return await _problem(request, error)
    return HTTPResponse(None, 303, {**_HEADERS, **_OF_PAGE, "Location": target})


async def answer(request: Request, section: Section, question: Question) -> HTTPResponse:
    """The page that answers a form."""
    _require_section(request, section)
    try:
        page = await _checked_form(request, section)
        context = {"page": page, "current": section.name, "token": _form_token(page), **await question.context(page)}
    except RegistryError as error:
        return await _problem(request, error)
    return await _shown(request, section, question.template, context)


async def events(request: Request, section: Section, view: View) -> HTTPResponse | None:
    """The live part of a view, again whenever it has changed."""
    _require_section(request, section)
    runtime = runtime_of(request)
    try:
        page = await _page_request(request)
        _require_viewer(page.viewer, is_for_operators=section.is_for_operators)
    except RegistryError as error:
        return await _problem(request, error)
    renderer = await runtime.page.renderer()
    accept_language = request.headers.get("accept-language", "")
    # Viewers with the same account, language and address see the same.
    key = (view.path, page.viewer.account, language_for(accept_language), page.hint, page.scheme, page.host)

    async def render() -> str:
        return await renderer.render(view.live, accept_language, {"page": page, **await view.context(page)})

    await send_events(request, page.viewer, _HEADERS | _OF_PAGE, lambda: runtime.page.shared.get(key, render))
    return None


async def login(request: Request) -> HTTPResponse:
    """Makes the browser ask for a login, which it then sends with each request for the page."""
    _require_page(request)
    if not runtime_of(request).settings.takes_page_logins:
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
    if runtime_of(request).settings.page == "admin":
        try:
            await _page_request(request)
        except RegistryError as error:
            return await _problem(request, error)
    asset = (await runtime_of(request).page.renderer()).assets.find(name)
    if asset is None:
        raise _not_found(request)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers = {**_HEADERS, **_OF_ASSET, "Content-Encoding": "gzip"}
        return HTTPResponse(asset.compressed, 200, headers, asset.media_type)
    return HTTPResponse(asset.content, 200, {**_HEADERS, **_OF_ASSET}, asset.media_type)


async def _checked_form(request: Request, section: Section) -> PageRequest:
    """The fields of a form of this section. Raises CredentialsRejected, Denied for a forged form, RequestInvalid."""
    page = await _page_request(request, _fields_of(request))
    _require_viewer(page.viewer, is_for_operators=section.is_for_operators)
    check_origin(request.headers, runtime_of(request).addresses.requested_host(request))
    check_token(*_signed_values(page), page.arguments.get(FIELD, ""))
    return page


def _require_page(request: Request) -> None:
    """Raises NotFound if the settings turn the page off."""
    if runtime_of(request).settings.page == "off":
        raise _not_found(request)


def _require_section(request: Request, section: Section) -> None:
    """Raises NotFound if the settings turn the page or the section off."""
    _require_page(request)
    if section.is_for_operators and not runtime_of(request).settings.admin_accounts:
        raise _not_found(request)


def _require_viewer(viewer: Viewer, *, is_for_operators: bool) -> None:
    """Raises CredentialsRejected if only operators may see this and the viewer is none: an account of the mirror can
    then log in as an operator.
    """
    if is_for_operators and not viewer.is_operator:
        raise CredentialsRejected("log in as an operator of this mirror")


def _form_token(page: PageRequest) -> str:
    """The token of the forms on a page; "" for a viewer who may not act."""
    return make_token(*_signed_values(page)) if page.viewer.is_operator else ""


def _signed_values(page: PageRequest) -> tuple[bytes, str, str, float]:
    container, operator = page.container, page.viewer.account
    return container.form_key(), operator, container.operators().stamp(operator), container.clock().now()


def _fields_of(request: Request) -> dict[str, str]:
    """The first value of each field of the form. Raises RequestInvalid."""
    try:
        return {name: values[0] for name, values in form_of(request).items()}
    except ValueError as error:
        raise RequestInvalid(str(error)) from error


def _not_found(request: Request) -> NotFound:
    """As Sanic raises it for a path without a route."""
    return NotFound(f"Requested URL {request.path} not found")


async def _page_request(request: Request, form: Mapping[str, str] | None = None) -> PageRequest:
    """`form`: its fields take the place of the query. Raises CredentialsRejected for a wrong login, or if the page is
    for operators and the viewer is none; TooManyAttempts; RequestInvalid for an invalid Host.
    """
    runtime = runtime_of(request)
    viewer = await runtime.container.identify_viewer()(caller_of(request))
    _require_viewer(viewer, is_for_operators=runtime.settings.page == "admin")
    scheme, _, host = runtime.addresses.address_of(request).partition("://")
    hint = runtime.container.upstreams().hint_of(host=runtime.addresses.host_of(request))
    arguments = form if form is not None else {name: values[0] for name, values in request.get_args().items()}
    reloads = request.app.ctx.reloads
    return PageRequest(viewer, hint, scheme, host, arguments, runtime.settings, runtime.container, reloads)


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


async def _shown(request: Request, section: Section, template: str, context: Context) -> HTTPResponse:
    """A page of the section."""
    shown = await _html(request, template, context)
    if section.is_for_operators:
        shown.headers.update(_OF_FORM)
    return shown


async def _html(request: Request, template: str, context: Context) -> HTTPResponse:
    renderer = await runtime_of(request).page.renderer()
    page = context["page"]
    is_operator = isinstance(page, PageRequest) and page.viewer.is_operator
    navigation = [(one.name, one.views[0].path) for one in SECTIONS if is_operator or not one.is_for_operators]
    settings = runtime_of(request).settings
    takes_logins, has_accounts = settings.takes_page_logins, settings.has_accounts
    everywhere = {
        "navigation": navigation,
        "version": VERSION,
        "takes_logins": takes_logins,
        "has_accounts": has_accounts,
    }
    text = await renderer.render(template, request.headers.get("accept-language", ""), {**everywhere, **context})
    return HTTPResponse(text, 200, {**_HEADERS, **_OF_PAGE}, "text/html; charset=utf-8")


pages = Blueprint("pages")
for _section in SECTIONS:
    for _view in _section.views:
        pages.add_route(partial(show, section=_section, view=_view), _view.path, methods=READ, name=f"page{_view.path}")
        if _view.live:
            pages.add_route(
                partial(events, section=_section, view=_view), f"{_view.path}/events", name=f"events{_view.path}"
            )
    for _action in _section.actions:
        _path = _action.path
        pages.add_route(partial(act, section=_section, action=_action), _path, methods=("POST",), name=f"act{_path}")
    for _question in _section.questions:
        _path = _question.path
        pages.add_route(
            partial(answer, section=_section, question=_question), _path, methods=("POST",), name=f"answer{_path}"
        )
pages.add_route(login, "/login", methods=READ)
pages.add_route(static, f"{PATH}<name:str>", methods=READ)
