"""The `cache` commands accept the image names that they print, also with several registries."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from domain.digest import Digest
from entrypoints.cli import main
from tests.entrypoints.plain_server import served

MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": MEDIA_TYPE}).encode()
REPOSITORY = "a-team-with-a-name/and-an-application/whose-name-is-longer-than-a-terminal-is-wide/by-some-letters"


class OneImage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_manifest = f"/v2/{REPOSITORY}/manifests/" in self.path
        self.send_response(200 if is_manifest or self.path == "/v2/" else 404)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", MEDIA_TYPE)
        self.send_header("Content-Length", str(len(MANIFEST)))
        self.send_header("Docker-Content-Digest", str(Digest.of(MANIFEST)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(MANIFEST)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's


@pytest.mark.parametrize("reference", [":1", f"@{Digest.of(MANIFEST)}"])
def test_an_image_has_the_same_name_in_warm_ls_and_purge(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The registry has its own host name. Without a terminal, the list is not truncated."""
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CONFIG", str(tmp_path / "mirror.toml"))
    with served(OneImage) as url, served(OneImage) as other:
        (tmp_path / "mirror.toml").write_text(
            f"""
            upstreams = [
              {{ name = "docker.io", url = "{other}" }},
              {{ name = "gitlab.test", url = "{url}", identity = "client", hosts = ["gitlab.mirror.test"] }},
            ]
            """
        )
        image = f"gitlab.test/{REPOSITORY}:1"
        assert main(["warm", image]) == 0
        capsys.readouterr()
        assert main(["cache", "ls"]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[0] == image
        assert main(["cache", "purge", f"gitlab.test/{REPOSITORY}{reference}"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == str(Digest.of(MANIFEST))


@pytest.mark.parametrize("action", ["stats", "ls", "verify", "purge library/redis:1", "prune"])
def test_without_a_shared_store_there_is_nothing_to_inspect_there(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))
    assert main(["cache", *action.split(), "--shared"]) == 2
    assert capsys.readouterr().err == ("docker-image-proxy: SHARED_STORE: is not set, so there is no shared store\n")
    assert not (tmp_path / "cache").exists()


def test_a_registry_that_is_not_mirrored_is_named_in_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "cache"))
    assert main(["cache", "purge", "quay.io/a/b"]) == 1
    assert capsys.readouterr().err == "docker-image-proxy: quay.io/a/b: this registry is not mirrored here\n"
