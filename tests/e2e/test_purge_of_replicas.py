"""An operator purges an image on the page of one of two replicas, with one Valkey and one SeaweedFS."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import bcrypt
import pytest

from tests.e2e.support.cached_mirror import MIB, NAME, Cached, FaultyUpstream, faulty_upstream
from tests.e2e.support.images import Image, make_image
from tests.e2e.support.plain_http import fetch
from tests.e2e.support.replicas import Replicas, digests, missing, pull_image, replicas
from tests.e2e.support.seaweedfs import SeaweedFS
from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import basic
from tests.e2e.support.valkey import Valkey

pytestmark = pytest.mark.real()
OLGA = basic("olga", "olga-pass")
OPERATORS = f"olga:{bcrypt.hashpw(b'olga-pass', bcrypt.gensalt(4)).decode()}"
SIZES = (100, 3 * MIB)
"""A blob that is stored with its record, and one in parts."""


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "purge-upstream") as running_one:
        yield running_one


@pytest.fixture
def pair(
    serve: Serving, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS
) -> Iterator[Replicas]:
    with replicas(serve, tmp_path, upstream, index, store, ADMIN_ACCOUNTS=OPERATORS) as found:
        yield found


def pulled_by_both(found: Replicas) -> Image:
    image = make_image("purged on the page", SIZES)
    found.upstream.push(image, "page")
    for replica in found.running:
        pull_image(replica, image, "page")
    assert found.stores(*digests(image))
    return image


def files_of(replica: Cached, image: Image) -> int:
    """How many blobs of the image are in the folder of the replica."""
    return sum(replica.cache.file(blob.digest).exists() for blob in image.blobs)


def purge(replica: Cached, upstream: FaultyUpstream, **fields: str) -> str:
    """Confirm the preview of a purge. Returns the preview."""
    place = {"registry": upstream.url.partition("//")[2], "repository": NAME, "reference": "page"}
    preview = replica.proxy.get(f"/admin/purge?{urlencode(place)}", OLGA).body.decode()
    [token] = re.findall(r'name="token" value="([^"]+)"', preview)
    form = urlencode({**place, **fields, "token": token}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": OLGA}
    assert fetch("POST", f"{replica.proxy.url}/admin/purge", headers, form).status == 303
    return preview


def test_a_purge_on_the_page_leaves_the_store_alone_unless_the_operator_says_so(pair: Replicas) -> None:
    image = pulled_by_both(pair)
    first, second = pair.running
    count = len(digests(image))
    assert purge(first, pair.upstream).count(f"Manifests and blobs: {count}, ") == 2
    assert [files_of(one, image) for one in (first, second)] == [0, len(image.blobs)]
    assert missing(pair.objects, *digests(image)) == []


def test_a_purge_on_the_page_removes_an_image_from_the_store_too(pair: Replicas) -> None:
    image = pulled_by_both(pair)
    first, second = pair.running
    assert "Other replicas keep what is in their folders" in purge(first, pair.upstream, everywhere="yes")
    assert [files_of(one, image) for one in (first, second)] == [0, len(image.blobs)]
    assert sorted(missing(pair.objects, *digests(image))) == sorted(digests(image))
    said = f"{len(digests(image))} removed, {len(digests(image))} from the shared store"
    assert [line for line in first.proxy.process.settled_lines(0) if "OperatorActed" in line and said in line]
