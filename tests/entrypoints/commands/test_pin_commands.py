"""`cache pin`, `unpin` and `pins`: what they print, and their exit status."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domain.digest import Digest
from entrypoints.cli import main
from tests.entrypoints.commands.test_cache_commands import MANIFEST, REPOSITORY, OneImage
from tests.entrypoints.plain_server import served

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a `cache` command in this process, with two registries: its status, its output and its messages."""
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

        def act(*words: str) -> tuple[int, str, str]:
            status = main(["cache", *words])
            return status, *capsys.readouterr()

        yield act


@pytest.mark.parametrize("reference", [":1", f"@{Digest.of(MANIFEST)}"])
def test_an_image_is_pinned_listed_and_unpinned_by_the_same_name(run: Run, reference: str) -> None:
    image = f"gitlab.test/{REPOSITORY}{reference}"
    status, out, _ = run("pin", image)
    assert (status, out) == (0, f"{image} is pinned: {Digest.of(MANIFEST)}, {len(MANIFEST)} bytes\n")
    _, out, _ = run("pins")
    row = out.splitlines()[1].split()
    assert row[:3] == [image, "all", str(Digest.of(MANIFEST))[:19]]
    assert row[-1] == "complete"
    _, out, _ = run("stats")
    assert f"1, {len(MANIFEST)} bytes; 0 with a problem" in out
    status, out, _ = run("unpin", image)
    assert (status, out.partition(";")[0]) == (0, f"{image} is not pinned any more")
    assert len(run("pins")[1].splitlines()) == 1
    assert run("ls")[1].count(REPOSITORY) == (reference == ":1"), "its content stays"


@pytest.mark.parametrize("target", ["", ":1", f"@{Digest.of(MANIFEST)}"])
def test_a_pinned_image_is_purged_only_after_it_was_unpinned(run: Run, target: str) -> None:
    image = f"gitlab.test/{REPOSITORY}"
    run("pin", f"{image}:1")
    status, out, err = run("purge", f"{image}{target}")
    assert (status, out) == (1, "")
    assert err == f"docker-image-proxy: {image}:1 is pinned and cannot be purged; unpin it first\n"
    run("unpin", f"{image}:1")
    assert run("purge", f"{image}{target}")[0] == 0


def test_an_image_that_does_not_exist_is_pinned_with_a_problem(run: Run) -> None:
    status, out, err = run("pin", "gitlab.test/team/none", "--platform", "all")
    assert (status, out) == (1, "")
    assert "gitlab.test/team/none is pinned, but: the upstream does not have it" in err
    row = run("pins")[1].splitlines()[1]
    assert row.split()[0] == "gitlab.test/team/none:latest"
    assert row.rstrip().endswith("the upstream does not have it, or not all of it")


def test_a_platform_must_be_an_operating_system_and_an_architecture(run: Run) -> None:
    for text in ("arm64", "linux/", "linux/arm/v7/x", "Linux/amd64"):
        status, out, err = run("pin", f"gitlab.test/{REPOSITORY}", "--platform", "linux/amd64", "--platform", text)
        assert (status, out) == (2, "")
        assert err == (f"docker-image-proxy: {text!r} is not a platform; write it like linux/amd64 or linux/arm/v7\n")
    assert len(run("pins")[1].splitlines()) == 1, "nothing is pinned"


def test_only_a_pinned_image_can_be_unpinned(run: Run) -> None:
    status, _, err = run("unpin", "gitlab.test/team/none")
    assert (status, err) == (1, "docker-image-proxy: gitlab.test/team/none is not pinned\n")


def test_an_image_of_a_registry_that_left_the_settings_is_unpinned_by_the_name_in_the_list(
    run: Run, tmp_path: Path
) -> None:
    run("pin", f"gitlab.test/{REPOSITORY}:1")
    (tmp_path / "mirror.toml").write_text('upstreams = ["docker.io"]')
    name = run("pins")[1].splitlines()[1].split()[0]
    assert name.startswith("http://127.0.0.1:")
    status, out, _ = run("unpin", name)
    assert (status, out.partition(";")[0]) == (0, f"{name} is not pinned any more")
    assert len(run("pins")[1].splitlines()) == 1


@pytest.mark.parametrize("action", ["pin", "unpin"])
def test_a_registry_that_is_not_mirrored_is_named_in_the_message(run: Run, action: str) -> None:
    assert run(action, "quay.io/a/b")[2] == "docker-image-proxy: this registry is not mirrored here\n"


@pytest.mark.parametrize("words", [["pin", "a"], ["unpin", "a"], ["pins"]])
def test_without_a_cache_nothing_is_pinned(run: Run, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DIR", "off")
    assert run(*words)[::2] == (2, "docker-image-proxy: CACHE_DIR: the cache is off, so no image can be pinned\n")
