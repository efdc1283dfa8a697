"""The compose file for one mirror follows its schema, and the service accepts its settings."""

from typing import Any

import pytest
import yaml

from entrypoints.settings import load_settings
from entrypoints.settings.sources import KNOWN_NAMES
from tests.deploy.test_compose import DEPLOY, cache_of_the_image, check


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.single.yaml").read_text()))


@pytest.fixture
def mirror(compose: dict[str, Any]) -> dict[str, Any]:
    return dict(compose["services"]["mirror"])


def test_the_file_follows_the_compose_schema(compose: dict[str, Any]) -> None:
    check(compose)
    assert list(compose["services"]) == ["mirror"]


def test_the_container_has_no_rights_and_writes_only_to_the_cache_and_to_memory(
    compose: dict[str, Any], mirror: dict[str, Any]
) -> None:
    found = (mirror["read_only"], mirror["cap_drop"], mirror["security_opt"], mirror["restart"])
    assert found == (True, ["ALL"], ["no-new-privileges:true"], "unless-stopped")
    [name] = compose["volumes"]
    assert mirror["volumes"] == [f"{name}:{cache_of_the_image()}"]
    assert mirror["tmpfs"] == ["/tmp"]  # noqa: S108 - a folder in memory


def test_the_image_is_built_from_the_files_that_are_there(mirror: dict[str, Any]) -> None:
    context = (DEPLOY / mirror["build"]["context"]).resolve()
    assert (context / mirror["build"]["dockerfile"]).is_file()
    assert "PORT=5000" in (DEPLOY / "Dockerfile").read_text()
    assert mirror["ports"] == ["8080:5000"]


def test_the_service_accepts_the_settings(mirror: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name.lower() for name in mirror["environment"]} - KNOWN_NAMES == set()
    for name, value in {**mirror["environment"], "HOST": "0.0.0.0", "CACHE_DIR": cache_of_the_image()}.items():
        monkeypatch.setenv(name, value)
    assert load_settings().shutdown_grace < float(mirror["stop_grace_period"].removesuffix("s"))


def test_the_file_of_variables_need_not_exist_and_is_not_committed(mirror: dict[str, Any]) -> None:
    [file] = mirror["env_file"]
    assert file["required"] is False
    assert f"deploy/{file['path']}" in (DEPLOY.parent / ".gitignore").read_text().splitlines()


def test_the_commands_in_the_comments_name_this_file_and_the_example() -> None:
    text = (DEPLOY / "compose.single.yaml").read_text()
    assert "docker compose -f deploy/compose.single.yaml up" in text
    assert (DEPLOY.parent / ".env.example").is_file()
