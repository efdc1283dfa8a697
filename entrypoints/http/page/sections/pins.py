"""Pinned images: the part of the administration that lists, pins and unpins them."""

import re

from application.ports.content import StorageFailed
from application.upkeep.pinned_images import PinTotals
from domain.errors import ActionFailed
from domain.manifests import parse_platform
from domain.names import Reference, RepositoryName
from domain.pins import Pin
from entrypoints.http.page.image_names import parse_image
from entrypoints.http.page.section import Action, Context, PageRequest, View

_PATH = "/admin/pins"
_ALL = "all"


async def _pins(page: PageRequest) -> Context:
    try:
        states = await page.container.pinned_images().states()
    except StorageFailed as error:
        raise ActionFailed(str(error)) from error
    return {
        "image": page.argument("image"),
        "states": states,
        "totals": PinTotals.of([one.image for one in states]),
        "limit": page.container.cache_capacity().max_bytes,
    }


async def _pin(page: PageRequest) -> str:
    source, reference = parse_image(page.argument("image"), page.container.upstreams(), page.hint, page.host)
    platforms = [one for one in re.split(r"[\s,]+", page.argument("platforms")) if one]
    wanted = [parse_platform(one) for one in platforms if one != _ALL] if platforms else None
    await page.container.administer().pin(page.viewer, source, reference, wanted)
    return _PATH


async def _unpin(page: PageRequest) -> str:
    repository, reference = RepositoryName(page.argument("repository")), Reference.parse(page.argument("reference"))
    await page.container.administer().unpin(page.viewer, Pin(page.argument("upstream"), repository, reference))
    return _PATH


PINS = View(_PATH, "admin/pins.html", _pins)
PIN_ACTIONS = (Action(_PATH, _pin), Action(f"{_PATH}/unpin", _unpin))
