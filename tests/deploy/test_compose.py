"""The compose file follows its schema, and its parts belong together. tests/e2e/test_compose.py runs its services."""

import copy
import json
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from entrypoints.settings.sources import KNOWN_NAMES, load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
REPLICAS = ("mirror-1", "mirror-2")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def check(document: dict[str, Any]) -> None:
    schemas = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    jsonschema.validate(document, json.loads((schemas / "compose-spec.json").read_text()))


def made_secrets(folder: Path) -> Path:
    subprocess.run([DEPLOY / "make-secrets", folder], check=True, timeout=20)
    return folder


def test_the_file_follows_the_compose_schema(compose: dict[str, Any]) -> None:
    check(compose)


def test_the_schema_finds_an_unknown_key_and_a_wrong_type(compose: dict[str, Any]) -> None:
    for key, value in [("restarts", "always"), ("read_only", "perhaps not")]:
        wrong = copy.deepcopy(compose)
        wrong["services"]["valkey"][key] = [value]
        with pytest.raises(jsonschema.ValidationError):
            check(wrong)


@pytest.mark.parametrize("kind", ["secrets", "configs", "networks", "volumes"])
def test_what_the_services_use_is_defined_and_what_is_defined_is_used(compose: dict[str, Any], kind: str) -> None:
    used = set()
    for service in compose["services"].values():
        for one in service.get(kind, []):
            used.add(one["source"] if isinstance(one, dict) else one.partition(":")[0])
    assert used == set(compose[kind])


def test_no_container_has_rights_or_writes_to_its_image(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        found = (service["read_only"], service["cap_drop"], service["security_opt"], service["restart"])
        assert found == (True, ["ALL"], ["no-new-privileges:true"], "unless-stopped"), name


def test_only_the_load_balancer_is_reached_from_outside(compose: dict[str, Any]) -> None:
    assert [name for name, service in compose["services"].items() if service.get("ports")] == ["balancer"]
    assert compose["networks"]["inner"]["internal"] is True
    for name in ("valkey", "store"):
        assert compose["services"][name]["networks"] == ["inner"]


def test_each_replica_has_a_cache_of_its_own(compose: dict[str, Any]) -> None:
    [first], [second] = (compose["services"][name]["volumes"] for name in REPLICAS)
    assert first != second
    assert first.partition(":")[2] == second.partition(":")[2] == cache_of_the_image()


def cache_of_the_image() -> str:
    [line] = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line.startswith("VOLUME ")]
    return line.split()[1]


def test_the_load_balancer_knows_every_replica_at_the_port_of_the_image(compose: dict[str, Any]) -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    assert [line.split()[1] for line in text.splitlines() if line.strip().startswith("server mirror")] == [
        f"{name}:5000" for name in REPLICAS
    ]
    assert "PORT=5000" in (DEPLOY / "Dockerfile").read_text()
    assert compose["services"]["balancer"]["ports"] == ["8080:8080"]


def test_the_service_accepts_the_settings_of_the_replicas(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = made_secrets(tmp_path / "secrets")
    environment = compose["services"]["mirror-1"]["environment"]
    assert {name for name in environment if name.lower() not in KNOWN_NAMES} == {
        "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_REGION",
    }  # fmt: skip
    for name, value in {**environment, "HOST": "0.0.0.0", "CACHE_DIR": cache_of_the_image()}.items():
        monkeypatch.setenv(name, value.replace("/run/secrets", str(secrets)))
    settings = load_settings()
    assert settings.is_shared
    assert settings.shutdown_grace < 45


def test_secrets_are_made_once(tmp_path: Path) -> None:
    folder = made_secrets(tmp_path / "secrets")
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert len(set(found.values())) == len(found) == 4
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    made_secrets(folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == found
    (folder / "index_password").unlink()
    made_secrets(folder)
    assert (folder / "index_password").read_text() != found["index_password"]
    assert (folder / "server_secret").read_text() == found["server_secret"]


def test_the_secrets_have_the_names_of_the_compose_file(compose: dict[str, Any], tmp_path: Path) -> None:
    made = {path.name for path in made_secrets(tmp_path / "secrets").iterdir()}
    files = {Path(one["file"]).name for one in compose["secrets"].values()}
    assert made == files | {Path(compose["services"]["mirror-1"]["env_file"]).name}


def test_secrets_are_not_committed() -> None:
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert "deploy/secrets/" in ignored
