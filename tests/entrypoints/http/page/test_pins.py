"""The list of pinned images, for operators: what it shows, who may pin and unpin, and the mark in Browse."""

from typing import Any
from urllib.parse import urlencode

import pytest

from domain.digest import Digest
from domain.names import Reference, RepositoryName
from domain.pins import Pin, PinnedImage
from tests.entrypoints.conftest import Start
from tests.entrypoints.http.page.test_administration import (
    ACCOUNTS,
    ANN,
    MANIFEST,
    OLGA,
    OPERATORS,
    audits,
    form_token,
    parsed,
    pull,
    upstream,
)
from tests.entrypoints.service import Service, basic

__all__ = ["upstream"]  # the fixture
IMAGE = "upstream.test/team/app:v1"


async def send(service: Service, path: str, token: str, login: str = OLGA, **fields: str) -> Any:
    return await service.client.post(
        path, data={"token": token, **fields}, headers={"Authorization": login}, follow_redirects=False
    )


async def pin(service: Service, image: str = IMAGE, platforms: str = "", **more: str) -> Any:
    token = await form_token(service, path="/admin/pins")
    return await send(service, "/admin/pins", token, image=image, platforms=platforms, **more)


async def unpin(service: Service, **changed: str) -> Any:
    fields = {"upstream": "https://upstream.test", "repository": "team/app", "reference": "v1"} | changed
    return await send(service, "/admin/pins/unpin", await form_token(service, path="/admin/pins"), **fields)


async def page(service: Service, path: str = "/admin/pins", login: str | None = OLGA, **headers: str) -> str:
    answer = await service.get(path, {"Authorization": login, **headers} if login else headers)
    assert answer.status_code == 200
    assert parsed(answer.text) is not None
    return str(answer.text)


async def test_an_image_is_pinned_fetched_by_the_upkeep_and_unpinned(start: Start) -> None:
    service = await start(**OPERATORS)
    assert "No image is pinned." in await page(service)
    done = await pin(service)
    assert (done.status_code, done.headers["Location"]) == (303, "/admin/pins")
    shown = await page(service)
    assert IMAGE in shown
    assert "not checked yet" in shown
    assert not await service.parts.eviction().holds(Digest.of(MANIFEST)), "the request did not wait for the image"
    await service.parts.pinned_images().look_after()
    shown = await page(service)
    assert '<span class="badge good">complete</span>' in shown
    assert "all platforms" in shown
    assert "Pinned images: 1, 31 B." in shown
    assert (await unpin(service)).headers["Location"] == "/admin/pins"
    assert "No image is pinned." in await page(service)
    assert [(one.operator, one.action, one.subject, one.result) for one in audits(service)] == [
        ("olga", "pin", IMAGE, "pinned, all platforms"),
        ("olga", "unpin", IMAGE, "unpinned"),
    ]
    await unpin(service)
    assert audits(service)[-1].result == "was not pinned"


@pytest.mark.parametrize(
    ("text", "platforms"),
    [
        ("linux/amd64, linux/arm64", ("linux/amd64", "linux/arm64")),
        ("all", ()),
        ("", ()),
        (" linux/arm ", ("linux/arm",)),
    ],
)
async def test_platforms_are_separated_by_spaces_or_commas(start: Start, text: str, platforms: tuple[str, ...]) -> None:
    service = await start(**OPERATORS)
    await pin(service, platforms=text)
    [image] = await service.parts.pins().all()
    assert image.pin.platforms == platforms


async def test_what_is_no_platform_is_refused(start: Start) -> None:
    service = await start(**OPERATORS)
    answer = await pin(service, platforms="linux/amd64 arm64")
    assert answer.status_code == 400
    assert "&#39;arm64&#39; is not a platform" in answer.text
    assert await service.parts.pins().all() == []


async def test_a_problem_is_shown_and_marked_as_english(start: Start) -> None:
    service = await start(**OPERATORS)
    await pin(service, f"upstream.test/team/app@{Digest.of(b'none')}")
    await service.parts.pinned_images().look_after()
    shown = await page(service, **{"Accept-Language": "zh"})
    assert "不完整" in shown
    assert '<small class="problem" lang="en">the upstream does not have it, or not all of it</small>' in shown


async def test_an_image_of_a_registry_that_left_the_settings_is_shown_and_unpinned(start: Start) -> None:
    service = await start(**OPERATORS)
    gone = Pin("https://gone.test", RepositoryName("team/app"), Reference.parse("v1"))
    await service.parts.pins().keep(PinnedImage(gone, 1.0, problem="its registry is not mirrored here any more"))
    assert "https://gone.test/team/app:v1" in await page(service)
    await unpin(service, upstream="https://gone.test")
    assert await service.parts.pins().all() == []
    assert audits(service)[-1].subject == "https://gone.test/team/app:v1"


async def test_images_larger_than_the_cache_are_an_alert(start: Start) -> None:
    service = await start(**OPERATORS, cache_size="1MiB")
    key = Pin("https://upstream.test", RepositoryName("team/app"), Reference.parse("v1"))
    await service.parts.pins().keep(PinnedImage(key, 1.0, Digest.of(b""), {Digest.of(b""): 2**21}))
    assert "The pinned images are larger than the cache." in await page(service)


@pytest.mark.parametrize("login", [None, ANN, basic("olga", "wrong")])
async def test_only_operators_see_pin_and_unpin(start: Start, login: str | None) -> None:
    service = await start(**ACCOUNTS, **OPERATORS)
    await pin(service)
    headers = {"Authorization": login} if login else {}
    token = await form_token(service, path="/admin/pins")
    place = {"upstream": "https://upstream.test", "repository": "team/app", "reference": "v1"}
    answers = [
        await service.get("/admin/pins", headers),
        await service.client.post("/admin/pins", data={"token": token, "image": "a/b"}, headers=headers),
        await service.client.post("/admin/pins/unpin", data={"token": token, **place}, headers=headers),
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert "team/app" not in answer.text
    assert len(await service.parts.pins().all()) == 1


async def test_without_operators_pins_are_unknown(start: Start) -> None:
    service = await start(**ACCOUNTS)
    assert (await service.get("/admin/pins", {"Authorization": ANN})).status_code == 404


async def test_forged_forms_pin_and_unpin_nothing(start: Start) -> None:
    service = await start(**OPERATORS)
    await pin(service)
    place = {"upstream": "https://upstream.test", "repository": "team/app", "reference": "v1"}
    for path, fields in (("/admin/pins", {"image": "team/b"}), ("/admin/pins/unpin", place)):
        assert (await send(service, path, "x", **fields)).status_code == 403
        token = await form_token(service)
        foreign = {"Authorization": OLGA, "Origin": "https://evil.example"}
        answer = await service.client.post(path, data={"token": token, **fields}, headers=foreign)
        assert answer.status_code == 403
    assert [one.pin.repository.text for one in await service.parts.pins().all()] == ["team/app"]


@pytest.mark.parametrize("image", ["A B", "", "quay.io/team/app", "team/app:é", "team/app@sha256:1"])
async def test_what_is_no_image_is_not_pinned(start: Start, image: str) -> None:
    service = await start(**OPERATORS)
    assert (await pin(service, image)).status_code in {400, 404}
    assert await service.parts.pins().all() == []
    assert audits(service) == []


async def test_pins_that_cannot_be_read_or_stored_are_reported(start: Start) -> None:
    service = await start(**OPERATORS)
    token = await form_token(service)
    service.parts.pins().is_broken = True
    answer = await send(service, "/admin/pins", token, image=IMAGE)
    assert (answer.status_code, "the fake pins are broken" in answer.text) == (500, True)
    assert audits(service)[-1].result == "failed: the fake pins are broken"
    assert (await service.get("/admin/pins", {"Authorization": OLGA})).status_code == 500


async def test_only_operators_see_the_mark_in_browse(start: Start) -> None:
    """The anonymous viewer and the account may see the image itself."""
    for accounts, viewers in (({}, (None,)), (ACCOUNTS, (ANN,))):
        service = await start(**accounts, **OPERATORS)
        await pull(service, login=viewers[0])
        await pull(service, "v2", login=viewers[0])
        await pin(service)
        place = {"registry": "upstream.test", "repository": "team/app"}
        paths = [f"/browse/repository?{urlencode(place)}", f"/browse/image?{urlencode(place | {'reference': 'v1'})}"]
        for path in paths:
            assert (await page(service, path)).count(">pinned</span>") == 1
            for viewer in viewers:
                shown = await page(service, path, viewer)
                assert "v1" in shown
                assert "pinned" not in shown
                assert "/admin" not in shown
        assert "pinned" not in await page(service, f"/browse/image?{urlencode(place | {'reference': 'v2'})}")


async def test_an_operator_pins_what_browse_shows(start: Start) -> None:
    service = await start(**OPERATORS)
    await pull(service)
    place = urlencode({"registry": "upstream.test", "repository": "team/app", "reference": "v1"})
    link = f"/admin/pins?{urlencode({'image': IMAGE})}"
    assert f'href="{link}"' in await page(service, f"/browse/image?{place}")
    assert f'value="{IMAGE}"' in await page(service, link)
    await pin(service)
    assert link not in await page(service, f"/browse/image?{place}")
