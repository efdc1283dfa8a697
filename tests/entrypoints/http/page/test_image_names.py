"""The names of images that people type or paste."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import NameUnknown, RegistryError
from domain.trust import UpstreamIdentity
from domain.upstream_table import NO_HINT, UpstreamTable
from entrypoints.http.page.image_names import parse_image, registries_of
from entrypoints.settings import UpstreamSettings
from tests.fakes.parts import settings_of

DIGEST = "sha256:" + "a" * 64
HOST = "mirror.test:8080"


def table(*names: str) -> UpstreamTable:
    known = {"docker.io": "https://registry-1.docker.io"}
    upstreams = (UpstreamSettings(name=name, url=known.get(name, f"https://{name}"), place=name) for name in names)
    return settings_of(tuple(replace(one, identity=UpstreamIdentity.ANONYMOUS) for one in upstreams)).table


def named(text: str, *names: str) -> str:
    source, reference = parse_image(text, table(*(names or ("docker.io", "quay.io"))), NO_HINT, HOST)
    return f"{source.upstream.name}/{source.repository}{reference.suffix}"


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("docker pull nginx:1.27", "docker.io/library/nginx:1.27"),
        ("docker pull --platform=linux/arm64 bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("FROM alpine:3 AS build", "docker.io/library/alpine:3"),
        ("docker.io/bitnami/redis:7", "docker.io/bitnami/redis:7"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("docker://quay.io/prometheus/busybox", "quay.io/prometheus/busybox:latest"),
        ("quay.io:443/prometheus/busybox", "quay.io/prometheus/busybox:latest"),
        (f"quay.io/prometheus/busybox@{DIGEST}", f"quay.io/prometheus/busybox@{DIGEST}"),
        (f"quay.io/prometheus/busybox:1@{DIGEST}", f"quay.io/prometheus/busybox@{DIGEST}"),
        (f"{HOST}/quay.io/prometheus/busybox:1", "quay.io/prometheus/busybox:1"),
        (f"http://{HOST}/library/nginx:1", "docker.io/library/nginx:1"),
        ("https://hub.docker.com/_/nginx", "docker.io/library/nginx:latest"),
        ("https://hub.docker.com/r/bitnami/redis/tags", "docker.io/bitnami/redis:latest"),
        ("https://quay.io/repository/prometheus/busybox?tab=tags", "quay.io/prometheus/busybox:latest"),
    ],
)
def test_an_image_is_found_in_what_people_paste(text: str, image: str) -> None:
    assert named(text) == image


def test_a_name_without_a_registry_is_of_docker_hub_if_it_is_mirrored() -> None:
    assert named("nginx", "quay.io", "docker.io") == "docker.io/library/nginx:latest"
    assert named("team/app", "quay.io", "ghcr.io") == "quay.io/team/app:latest"


@pytest.mark.parametrize("text", ["ghcr.io/a/b", "localhost:5000/a", "registry.example.com/a:1"])
def test_a_registry_that_is_not_mirrored_is_refused(text: str) -> None:
    with pytest.raises(NameUnknown):
        named(text)


@pytest.mark.parametrize("text", ["", "-", "a b ../c", "nginx:", "nginx@sha256:1", "NGINX", "a//b", "<script>"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(RegistryError):
        named(text)


@given(st.text(max_size=80))
def test_no_text_is_an_error_of_the_mirror(text: str) -> None:
    with suppress(RegistryError):
        named(text)


def test_only_registries_after_the_first_need_a_name_in_the_path() -> None:
    found = list(registries_of(table("docker.io", "quay.io"), NO_HINT).values())
    assert [(one.name, one.server, one.prefix) for one in found] == [
        ("docker.io", "https://registry-1.docker.io", ""),
        ("quay.io", "https://quay.io", "quay.io"),
    ]


def test_a_registry_is_named_by_its_host_if_its_own_name_is_no_host() -> None:
    upstreams = settings_of((UpstreamSettings(name="corp", url="http://harbor.test:5000", place="x"),)).table
    [found] = registries_of(upstreams, NO_HINT).values()
    assert (found.name, found.server) == ("harbor.test:5000", "http://harbor.test:5000")
