"""Each of several upstreams has a back-off and an allowance of its own."""

from dataclasses import replace

import pytest

from domain.allowance import RateLimit
from domain.errors import UpstreamBackOff, UpstreamThrottled
from tests.application.access.test_shared_host import AT_QUAY, HUB, QUAY, SAME, House, manifest_of

AT_HUB = {"namespace": "docker.io"}


def test_each_upstream_has_an_allowance_of_its_own() -> None:
    house = House(tag_ttl=0)
    for url, left in ((HUB, 0), (QUAY, 7)):
        rate_limit = RateLimit(10, left, 21600)
        house.fakes[url].alter = lambda answer, rate_limit=rate_limit: replace(
            answer, metadata=replace(answer.metadata, allowance=rate_limit)
        )
        house.manifest(SAME, AT_QUAY if url == QUAY else AT_HUB)
    parts = house.service.parts
    shown = {one.url: parts.allowances().newest(one) for one in parts.upstreams().upstreams}
    assert {url: one.remaining for url, one in shown.items() if one} == {HUB: 0, QUAY: 7}
    page = b"".join(parts.metrics().parts()).decode()
    for url, left in ((HUB, 0), (QUAY, 7)):
        assert f'allowance_remaining{{upstream="{url}"}} {left}.0' in page


def test_a_429_of_one_spares_no_other() -> None:
    house = House()
    house.fakes[HUB].fault = UpstreamThrottled("slow down", retry_after="60")
    with pytest.raises(UpstreamThrottled):
        house.manifest(SAME, AT_HUB)
    with pytest.raises(UpstreamBackOff):
        house.manifest(SAME, AT_HUB)
    assert house.manifest(SAME, AT_QUAY).content == manifest_of(QUAY)
