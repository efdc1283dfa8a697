"""The style sheets and scripts of the page, and the libraries among them."""

import gzip
import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

from entrypoints.http.page import assets

STATIC = Path(assets.__file__).parent / "static"
VENDOR = STATIC / "vendor"
LIBRARIES: dict[str, Any] = tomllib.loads((VENDOR / "versions.toml").read_text(encoding="utf-8"))


def test_the_files_of_libraries_are_those_of_the_listed_versions() -> None:
    listed = {name: digest for library in LIBRARIES.values() for name, digest in library["files"].items()}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    assert found.pop("versions.toml")
    assert found == listed


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_library_has_a_version_and_a_licence(library: str) -> None:
    entry = LIBRARIES[library]
    assert entry["package"]
    assert entry["version"]
    [licence] = [name for name in entry["files"] if name.endswith(".LICENSE")]
    text = (VENDOR / licence).read_text(encoding="utf-8")
    assert {"0BSD": "Zero-Clause BSD", "MIT": "Permission is hereby granted"}[entry["licence"]] in text


def test_the_name_of_an_asset_changes_with_its_content() -> None:
    one, other = assets.Asset("page.js", b"one"), assets.Asset("page.js", b"other")
    assert one.name != other.name
    assert [one.name[:5], one.name[-3:]] == ["page.", ".js"]


def test_a_compressed_asset_has_the_same_content() -> None:
    asset = assets.Asset("page.js", b"some text " * 100)
    assert gzip.decompress(asset.compressed) == asset.content
    assert len(asset.compressed) < 100


def test_an_asset_is_found_by_its_path_only() -> None:
    found = assets.Assets(STATIC)
    path = found.path("page.css")
    asset = found.find(path.removeprefix("/static/"))
    assert asset
    assert asset.content == (STATIC / "page.css").read_bytes()
    assert found.find("page.css") is None
    with pytest.raises(KeyError):
        found.path("versions.toml")
