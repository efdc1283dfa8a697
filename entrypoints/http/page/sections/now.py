"""Now: the traffic, the state of the upstreams, and the running downloads."""

import asyncio

from entrypoints.http.page.image_names import registries_of
from entrypoints.http.page.section import Context, PageRequest, Section, View


async def _page(page: PageRequest) -> Context:
    container = page.container
    registries = registries_of(container.upstreams(), page.hint)
    traffic, upstreams, downloads = await asyncio.gather(
        container.measure_traffic()(),
        container.describe_upstreams()(registries),
        container.list_downloads()(page.viewer, registries.keys()),
    )
    return {
        "traffic": traffic,
        "today": container.read_history().today(),
        "upstreams": upstreams,
        "services": container.shared_services(),
        "downloads": downloads,
        "registries": registries,
        "seconds_now": container.clock().now(),
    }


NOW = Section("now", (View("/now", "now/page.html", _page, "now/state.html"),))
