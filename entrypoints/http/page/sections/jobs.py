"""Jobs of operators, a part of the administration: verify the cache, and watch and cancel the running job."""

from domain.errors import ActionFailed
from entrypoints.http.page.section import Action, Context, PageRequest, View

_PATH = "/admin/job"
_LONGEST_NUMBER = 18


async def _job(page: PageRequest) -> Context:
    return {"job": page.container.run_jobs().last()}


async def _verify(page: PageRequest) -> str:
    if page.settings.cache_dir is None:
        raise ActionFailed("the cache is off")
    page.container.run_jobs().verify(page.viewer)
    return _PATH


async def _cancel(page: PageRequest) -> str:
    number = page.argument("number", _LONGEST_NUMBER)
    if number.isascii() and number.isdigit():
        page.container.run_jobs().cancel(page.viewer, int(number))
    return _PATH


JOB_VIEWS = (View(_PATH, "admin/job.html", _job, "admin/job_state.html"),)
JOB_ACTIONS = (Action("/admin/verify", _verify), Action(f"{_PATH}/cancel", _cancel))
