"""The examples of the guide "Several machines" work."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from entrypoints.settings.sources import KNOWN_NAMES, load_settings

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "several-machines.md"


def examples(language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def daemon_set() -> dict[str, Any]:
    [text] = examples("yaml")
    return dict(yaml.safe_load(text))


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_kubernetes_accepts_the_daemon_set(daemon_set: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(daemon_set, version, strict=True)
    labels = daemon_set["spec"]["template"]["metadata"]["labels"]
    assert daemon_set["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_daemon_set_writes_the_file_of_the_guide(daemon_set: dict[str, Any], tmp_path: Path) -> None:
    [write] = daemon_set["spec"]["template"]["spec"]["initContainers"]
    [mount] = write["volumeMounts"]
    for _ in range(2):  # also if the file exists
        *shell, script = write["command"]
        subprocess.run([*shell, script.replace(mount["mountPath"], str(tmp_path))], check=True, timeout=20)
    [documented] = [text for text in examples("toml") if "hosts.toml" in text]
    assert [path.name for path in (tmp_path / "_default").iterdir()] == ["hosts.toml"]
    written = tomllib.loads((tmp_path / "_default" / "hosts.toml").read_text())
    assert written == tomllib.loads(documented) != {}
    [volume] = daemon_set["spec"]["template"]["spec"]["volumes"]
    assert (volume["name"], volume["hostPath"]["path"]) == (mount["name"], "/etc/containerd/certs.d")


def test_the_service_accepts_another_region_as_a_fallback(tmp_path: Path) -> None:
    [text] = [text for text in examples("toml") if "fallbacks" in text]
    path = tmp_path / "mirror.toml"
    path.write_text(text)
    [upstream] = load_settings(path).upstreams
    assert [str(one) for one in upstream.fallbacks] == ["https://for-other-regions.us.mirror.example.com/docker.io"]


def test_the_settings_of_the_shared_tier_exist() -> None:
    names = re.findall(r"^([A-Z_]+)=", "\n".join(examples("sh")), re.MULTILINE)
    assert len(names) == 5
    assert {name.lower() for name in names} <= KNOWN_NAMES
