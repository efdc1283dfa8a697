"""scripts/release refuses what is not ready. tests/packages makes a whole release."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHANGELOG = (
    "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-01\n\n### Added\n\n- A thing.\n\n## [1.2.2]\n\n- Old.\n"
)


def git(folder: Path, *words: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True, timeout=20)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the release script, and with packages that are built at once."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in ("scripts/release", "scripts/lib.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "scripts" / "package").write_text('echo "$@" >>"$2/packages.txt"\n')
    (tmp_path / "entrypoints").mkdir()
    (tmp_path / "entrypoints" / "version.py").write_text('VERSION = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / ".gitignore").write_text("dist/\n")
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def commit(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "A commit")


def release(checkout: Path, *options: str) -> tuple[int, str]:
    argv = ["sh", "scripts/release", *options]
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stderr


def test_a_release_has_the_packages_the_changes_and_the_checksums(checkout: Path) -> None:
    assert release(checkout) == (0, "")
    made = checkout / "dist" / "1.2.3"
    assert (made / "CHANGES-1.2.3.md").read_text() == "### Added\n\n- A thing.\n\n"
    assert (made / "packages.txt").read_text().splitlines() == [
        f"--into {made} wheel sbom deb",
        f"--into {made} --arch arm64 deb",
    ]
    names = [line.split()[1] for line in (made / "SHA256SUMS").read_text().splitlines()]
    assert names == ["CHANGES-1.2.3.md", "packages.txt"]
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=made, check=True, timeout=20)


def test_the_images_are_built_on_request(checkout: Path) -> None:
    assert release(checkout, "--image", "--into", "dist/x") == (0, "")
    made = checkout / "dist" / "x"
    assert (made / "packages.txt").read_text().splitlines()[-1] == f"--into {made} images"


def refused(checkout: Path, message: str) -> bool:
    status, said = release(checkout)
    return (status, message in said, (checkout / "dist").exists()) == (1, True, False)


def test_a_checkout_with_changes_is_refused(checkout: Path) -> None:
    (checkout / "new.py").write_text("")
    assert refused(checkout, "changes that are not committed:\n?? new.py")


@pytest.mark.parametrize("heading", ["## [1.2.4]", "## [1.2.30]", "## [11.2.3]"])
def test_a_version_without_a_section_in_the_changelog_is_refused(checkout: Path, heading: str) -> None:
    (checkout / "CHANGELOG.md").write_text(CHANGELOG.replace("## [1.2.3]", heading))
    commit(checkout)
    assert refused(checkout, "CHANGELOG.md has no section for 1.2.3")


def test_an_empty_section_is_refused(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text("## [1.2.3]\n\n## [1.2.2]\n\n- Old.\n")
    commit(checkout)
    assert refused(checkout, "CHANGELOG.md has no section for 1.2.3")


def test_changes_without_a_version_are_refused(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text(CHANGELOG.replace("## [Unreleased]\n", "## [Unreleased]\n\n- More.\n"))
    commit(checkout)
    assert refused(checkout, "entries under Unreleased")


def test_a_version_that_has_a_tag_is_refused(checkout: Path) -> None:
    git(checkout, "tag", "v1.2.3")
    assert refused(checkout, "the tag v1.2.3 exists")


def test_a_folder_with_files_is_not_mixed_with_a_release(checkout: Path) -> None:
    assert release(checkout)[0] == 0
    status, said = release(checkout)
    assert (status, "is not empty" in said) == (1, True)
