"""Administration: what operators can do. Each action is a form that is checked by form_checks.py and leaves an audit
line in the log.
"""

import asyncio
from ipaddress import ip_address
from urllib.parse import urlencode

from application.page.administer import Preview, image_name
from application.page.explain_pull import PullQuestion
from application.ports.content import StorageFailed
from application.upkeep.manage_cache import ImagePinned
from domain.digest import Digest
from domain.errors import ActionFailed, DigestInvalid, NameInvalid, RegistryError, RequestInvalid, TagInvalid
from domain.names import Reference, RepositoryName, Tag
from domain.records import ANONYMOUS_CLASS, PERSONAL_CLASS
from domain.upstreams import Source, Upstream
from domain.value import Value
from entrypoints.http.page.client_configurations import Registry
from entrypoints.http.page.image_names import parse_request, registries_of
from entrypoints.http.page.section import Action, Context, PageRequest, Question, Section, View
from entrypoints.http.page.sections.jobs import JOB_ACTIONS, JOB_VIEWS
from entrypoints.http.page.sections.pins import PIN_ACTIONS, PINS

_PATH = "/admin"
_DAY_SECONDS = 86400
_SHOWN = 100
"""Digests in a preview."""
_RELOAD_SECONDS = 12.0
"""How long a reload is waited for: longer than the main process waits for its workers."""
_LOOK_SECONDS = 0.05
_KINDS = {ANONYMOUS_CLASS: "anonymous", PERSONAL_CLASS: "personal"}
"""The names of classes of callers in texts. The others are logins of the mirror."""


class Purge(Value, frozen=True):
    """What a form wants to remove: content that was not used for some `days`, or else the content of a repository, or
    the image of its tag or digest `target`. `everywhere`: also from the shared store.
    """

    days: int | None
    source: Source | None
    target: Tag | Digest | None
    everywhere: bool

    @classmethod
    def of(cls, page: PageRequest) -> "Purge":
        """Raises RequestInvalid, NameInvalid, TagInvalid, DigestInvalid."""
        everywhere = page.argument("everywhere") == "yes"
        if days := page.argument("days"):
            if not days.isascii() or not days.isdigit() or len(days) > len("99999"):
                raise RequestInvalid("the number of days is not a whole number from 0 to 99999")
            return cls(int(days), None, None, everywhere)
        wanted, reference = page.argument("registry"), page.argument("reference")
        upstream = next((one for one, registry in _registries(page).items() if registry.name == wanted), None)
        if upstream is None:
            raise RequestInvalid("this registry is not mirrored here")
        source = Source(upstream, RepositoryName(page.argument("repository")))
        return cls(None, source, Reference.parse(reference).target if reference else None, everywhere)


def _registries(page: PageRequest) -> dict[Upstream, Registry]:
    return registries_of(page.container.upstreams(), page.hint)


async def _page(page: PageRequest) -> Context:
    removed = page.argument("removed", 9)
    return {
        "registries": _registries(page).values(),
        "has_cache": page.settings.cache_dir is not None,
        "job": page.container.run_jobs().last(),
        "removed": int(removed) if removed.isascii() and removed.isdigit() else None,
        "can_reload": page.reloads is not None,
        "last_reload": page.reloads.last() if page.reloads else None,
    }


async def _preview(page: PageRequest) -> Context:
    administer, problem, pinned, found, purge = page.container.administer(), "", None, Preview(()), None
    try:
        purge = Purge.of(page)
        if purge.source:
            found = await administer.to_purge(purge.source, purge.target)
        else:
            found = await administer.to_prune((purge.days or 0) * _DAY_SECONDS)
    except (RequestInvalid, NameInvalid, TagInvalid, DigestInvalid) as error:
        problem = error.message
    except ImagePinned as error:
        pinned = image_name(error.source, error.pin.reference.target)
    except StorageFailed as error:
        raise ActionFailed(str(error)) from error
    return {
        "purge": purge,
        "problem": problem,
        "pinned": pinned,
        "registry": _registries(page)[purge.source.upstream] if purge and purge.source else None,
        "shown": found.here[:_SHOWN],
        "count": len(found.here),
        "size": sum(one.size for one in found.here),
        "is_shared": page.settings.is_shared,
        "shared": found.shared,
        "failure": found.failure,
    }


async def _purge(page: PageRequest) -> str:
    purge, administer = Purge.of(page), page.container.administer()
    if purge.source:
        try:
            count = await administer.purge(page.viewer, purge.source, purge.target, everywhere=purge.everywhere)
        except ImagePinned:
            # It was pinned after the preview, which says so now.
            names = ("registry", "repository", "reference")
            return f"{_PATH}/purge?{urlencode({name: page.argument(name) for name in names})}"
    else:
        count = await administer.prune(page.viewer, (purge.days or 0) * _DAY_SECONDS)
    return f"{_PATH}?{urlencode({'removed': count})}"


async def _reload(page: PageRequest) -> str:
    """Reloads the settings. The result is shown by the next page, whichever worker makes it."""
    reloads, administer = page.reloads, page.container.administer()
    if reloads is None:
        raise ActionFailed("the settings cannot be reloaded here")
    before = reloads.last()
    reloads.request()
    loop = asyncio.get_running_loop()
    end = loop.time() + _RELOAD_SECONDS
    while (result := reloads.last()) == before and loop.time() < end:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(_LOOK_SECONDS)
    done = result.message if result and result != before else "not finished yet"
    administer.record(page.viewer, "reload", "settings", done)
    return f"{_PATH}#reload"


async def _why(page: PageRequest) -> Context:
    """Why a pull was refused, or whether it would be allowed."""
    container, problem, explanation = page.container, "", None
    try:
        explanation = await container.explain_pull()(page.viewer, _question(page))
    except RegistryError as error:
        problem = error.message
    else:
        subject, reason = image_name(explanation.source, explanation.question.target), explanation.decision.reason
        container.administer().record(page.viewer, "explain", subject, f"{reason.verdict.value}: {reason.key}")
    registries = _registries(page)
    return {
        "problem": problem,
        "asked": {name: page.argument(name) for name in ("image", "account", "address")},
        "explained": explanation,
        "registry": registries[explanation.source.upstream] if explanation else None,
        "given_to": sorted({_KINDS.get(one, "mirrors") for one in explanation.cache.classes})
        if explanation and explanation.cache
        else (),
    }


def _question(page: PageRequest) -> PullQuestion:
    """Raises a RegistryError for what is not an image, not mirrored, or not an address."""
    name, hint, reference = parse_request(page.argument("image"), page.container.upstreams(), page.hint, page.host)
    address = page.argument("address")
    if address:
        try:
            address = str(ip_address(address))
        except ValueError:
            raise RequestInvalid("the address of the client is not an IP address") from None
    return PullQuestion(name, hint, reference.target, page.argument("account"), address)


ADMINISTRATION = Section(
    "admin",
    (View(_PATH, "admin/page.html", _page), View(f"{_PATH}/purge", "admin/purge.html", _preview), PINS, *JOB_VIEWS),
    (Action(f"{_PATH}/purge", _purge), Action(f"{_PATH}/reload", _reload), *PIN_ACTIONS, *JOB_ACTIONS),
    (Question(f"{_PATH}/why", "admin/why.html", _why),),
    is_for_operators=True,
)
