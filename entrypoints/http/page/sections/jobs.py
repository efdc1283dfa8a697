"""Jobs of operators, a part of the administration: verify the cache, pull an image into it, and watch and cancel the
running job.
"""

from application.upkeep.warm import Image
from domain.errors import ActionFailed, RequestInvalid
from domain.manifests import parse_platform
from entrypoints.http.page.image_names import parse_request
from entrypoints.http.page.section import Action, Context, PageRequest, View

_PATH = "/admin/job"
_LONGEST_NUMBER = 18
_LONGEST_PLATFORMS = 200


async def _job(page: PageRequest) -> Context:
    return {"job": page.container.run_jobs().last()}


def _require_cache(page: PageRequest) -> None:
    if page.settings.cache_dir is None:
        raise ActionFailed("the cache is off")


async def _verify(page: PageRequest) -> str:
    _require_cache(page)
    page.container.run_jobs().verify(page.viewer)
    return _PATH


async def _warm(page: PageRequest) -> str:
    """Raises a RegistryError for what is not an image, or not mirrored."""
    _require_cache(page)
    name, hint, reference = parse_request(page.argument("image"), page.container.upstreams(), page.hint, page.host)
    platforms = page.arguments.get("platforms", "").strip()
    if len(platforms) > _LONGEST_PLATFORMS:
        raise RequestInvalid(f"these platforms are longer than {_LONGEST_PLATFORMS} characters")
    wanted = tuple(parse_platform(one) for one in platforms.replace(",", " ").split())
    image = Image(name, reference, wanted, hint)
    page.container.run_jobs().warm(page.viewer, image)
    return _PATH


async def _cancel(page: PageRequest) -> str:
    number = page.argument("number", _LONGEST_NUMBER)
    if number.isascii() and number.isdigit():
        page.container.run_jobs().cancel(page.viewer, int(number))
    return _PATH


JOB_VIEWS = (View(_PATH, "admin/job.html", _job, "admin/job_state.html"),)
JOB_ACTIONS = (Action("/admin/verify", _verify), Action("/admin/warm", _warm), Action(f"{_PATH}/cancel", _cancel))
