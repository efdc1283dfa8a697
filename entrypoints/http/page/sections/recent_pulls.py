"""Recent pulls: the newest manifests that clients got, with hit or miss, duration and size."""

from entrypoints.http.page.image_names import registries_of
from entrypoints.http.page.section import Context, PageRequest, Section, View


async def _page(page: PageRequest) -> Context:
    registries = registries_of(page.container.upstreams(), page.hint)
    shown = await page.container.list_recent_pulls()(page.viewer, registries.keys())
    return {"shown": shown, "registries": registries}


RECENT_PULLS = Section("recent_pulls", (View("/pulls", "recent_pulls/page.html", _page, "recent_pulls/list.html"),))
