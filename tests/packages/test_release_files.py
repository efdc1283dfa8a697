"""The files of a release that are not packages."""

import json
import re
from pathlib import Path

from entrypoints.version import VERSION

ROOT = Path(__file__).parents[2]


def test_the_sbom_has_every_package_of_the_lock_with_its_version(packages: Path) -> None:
    bom = json.loads((packages / f"docker-image-proxy-{VERSION}.cdx.json").read_text())
    locked = set(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements/runtime.lock").read_text(), re.MULTILINE))
    assert {(one["name"], one["version"]) for one in bom["components"]} == locked
    assert bom["bomFormat"] == "CycloneDX"
    assert bom["metadata"]["component"]["version"] == VERSION


def test_the_sbom_and_the_wheel_are_reproducible(packages: Path) -> None:
    for path in packages.iterdir():
        if path.suffix in {".json", ".whl", ".gz"}:
            assert (packages / "again" / path.name).read_bytes() == path.read_bytes(), path.name
