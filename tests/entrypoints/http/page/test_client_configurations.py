"""The configurations on the page are those of the guides."""

import re
from dataclasses import replace

import pytest

from entrypoints.http.page.client_configurations import CLIENTS, Image, Mirror, Registry, Step
from tests.e2e.support.documented_configurations import block

HUB = Registry("docker.io", "https://registry-1.docker.io")
OTHERS = tuple(Registry(name, f"https://{name}", name) for name in ("quay.io", "ghcr.io", "harbor.example.com"))
HOST = "mirror.example.com:8080"
ONE = Mirror(HOST, is_tls=False, registries=(HUB,))
SEVERAL = replace(ONE, registries=(HUB, *OTHERS))
NGINX = Image(HUB, "library/nginx", ":latest")
BUSYBOX = Image(OTHERS[0], "prometheus/busybox", ":latest")


def steps(client: str, mirror: Mirror = ONE, image: Image = NGINX) -> dict[str, Step]:
    return {step.meaning: step for step in CLIENTS[client](mirror, image)}


def plain(text: str) -> str:
    """Without comments and without the lines of other registries."""
    return re.sub(r"[ \t]+#.*$", "", text, flags=re.MULTILINE)


def documented(page: str, language: str, number: int) -> str:
    return plain(block(page, language, number, {}))


def test_docker() -> None:
    found = steps("docker")
    assert found["docker_hub"].text == documented("docker", "json", 0)
    assert found["docker_insecure"].text == documented("docker", "json", 1)
    commands = documented("docker", "sh", 0).splitlines()
    assert found["or_by_name"].text.strip() in commands
    assert steps("docker", SEVERAL, BUSYBOX)["or_by_name"].text.strip() in commands


def test_docker_with_accounts() -> None:
    found = steps("docker", replace(ONE, has_accounts=True))
    assert found["login"].text + found["by_name"].text == documented("docker", "sh", 1)
    assert "docker_hub" not in found


def test_docker_needs_no_setting_for_tls_or_for_this_machine() -> None:
    assert "docker_insecure" not in steps("docker", replace(ONE, is_tls=True))
    assert "docker_insecure" not in steps("docker", replace(ONE, host="localhost:8080"))
    assert "docker_insecure" not in steps("docker", replace(ONE, host="[::1]:8080"))
    assert "docker_insecure" in steps("docker", replace(ONE, host="localhost.example.com"))


def test_docker_uses_a_mirror_only_if_docker_hub_is_its_first_registry() -> None:
    assert "docker_hub" not in steps("docker", replace(ONE, registries=OTHERS), BUSYBOX)


@pytest.mark.parametrize("client", ["containerd", "nerdctl"])
def test_containerd_and_nerdctl(client: str) -> None:
    found = steps(client)["configure"]
    assert found.text == documented(client, "toml", 0)
    assert found.place == "/etc/containerd/certs.d/docker.io/hosts.toml"
    header = documented(client, "toml", 2 if client == "containerd" else 1)
    if client == "containerd":
        header = next(text for number in range(1, 4) if "header" in (text := documented(client, "toml", number)))
    assert steps(client, replace(ONE, has_accounts=True))["configure"].text == found.text + header


def test_containerd_has_a_file_for_each_registry_and_that_of_the_image_first() -> None:
    found = [step for step in CLIENTS["containerd"](SEVERAL, BUSYBOX) if step.place]
    assert [step.place.split("/")[-2] for step in found] == ["quay.io", "docker.io", "ghcr.io", "harbor.example.com"]
    assert found[0].text.startswith('server = "https://quay.io"\n')


def test_podman() -> None:
    one, several = documented("podman", "toml", 0), documented("podman", "toml", 1)
    assert steps("podman")["configure"].text == one
    assert steps("podman", SEVERAL)["configure"].text == f"{one}\n{several}"
    assert steps("podman", replace(ONE, has_accounts=True))["login"].text == documented("podman", "sh", 0)
    assert "insecure" not in steps("podman", replace(ONE, is_tls=True))["configure"].text


def test_k3s() -> None:
    assert steps("k3s")["configure"].text == documented("k3s", "yaml", 0)
    ordered = replace(SEVERAL, registries=(HUB, *OTHERS))
    assert steps("k3s", ordered)["configure"].text == documented("k3s", "yaml", 2)
    assert steps("k3s", replace(ONE, has_accounts=True))["configure"].text == documented("k3s", "yaml", 0) + documented(
        "k3s", "yaml", 3
    )


def test_buildkit() -> None:
    first, mirror = documented("buildkit", "toml", 0).split("\n\n")
    several = documented("buildkit", "toml", 1)
    assert steps("BuildKit")["configure"].text == f"{first}\n\n{mirror}"
    assert steps("BuildKit", SEVERAL)["configure"].text == f"{first}\n\n{several}\n{mirror}"
    assert steps("BuildKit")["builder"].text == documented("buildkit", "sh", 0)
    assert steps("BuildKit")["check"].text == documented("buildkit", "sh", 2)
    assert steps("BuildKit", replace(ONE, has_accounts=True))["login"].text == documented("buildkit", "sh", 1)


def test_crane() -> None:
    commands = documented("crane", "sh", 0).splitlines()
    assert [line for line in steps("crane")["by_name"].text.splitlines() if line not in commands] == []
    named = steps("crane", SEVERAL, BUSYBOX)["by_name"].text.splitlines()[0]
    assert named in documented("crane", "sh", 1).splitlines()
    assert steps("crane", replace(ONE, has_accounts=True))["login"].text == documented("crane", "sh", 2)
    assert "--insecure" not in steps("crane", replace(ONE, is_tls=True))["by_name"].text


def test_tls_changes_the_scheme_everywhere() -> None:
    for client in CLIENTS.values():
        assert not any("http://" in step.text for step in client(replace(SEVERAL, is_tls=True), NGINX))
