"""scripts/conformance compares two runs of a suite."""

from pathlib import Path

import pytest

from tests.e2e.support.conformance import SUITES, compare, read_report

HEAD = '<testsuites><testsuite name="suite">'
END = "</testsuite></testsuites>"


def report(folder: Path, repository: str, *cases: tuple[str, str]) -> Path:
    """A report in the format of the suite `main`, with these names and states."""
    lines = [f'<testcase name="{name.format(repository)}" status="{state}"/>' for name, state in cases]
    file = folder / f"{repository}.xml"
    file.write_text(HEAD + "".join(lines) + END)
    return file


@pytest.mark.parametrize(
    ("mirrored", "worse"),
    [
        ([("a/pull/{}", "passed"), ("a/pull/{}", "failure")], 0),
        ([("a/pull/{}", "passed"), ("a/pull/{}", "passed")], 0),
        ([("a/pull/{}", "failure"), ("a/pull/{}", "failure")], 1),
        ([("a/pull/{}", "failure"), ("a/pull/{}", "skipped")], 1),
        ([("b/pull/{}", "passed")], 1),
    ],
    ids=["another order", "better", "a failure", "skipped", "absent"],
)
def test_tests_with_the_same_name_are_compared_by_how_many_passed(
    tmp_path: Path, mirrored: list[tuple[str, str]], worse: int
) -> None:
    direct = report(tmp_path, "direct", ("a/pull/{}", "failure"), ("a/pull/{}", "passed"))
    behind = report(tmp_path, "mirrored", *mirrored)
    assert compare(SUITES[1], read_report(direct, "direct"), read_report(behind, "mirrored")) == worse


def test_tests_of_write_requests_are_left_out(tmp_path: Path) -> None:
    writes = ["a/push/manifest-by-tag", "a/delete/tag-delete", "b/blob-patch-chunked", "b/blob-mount", "c/manifest-put"]
    reads = ["a/pull/manifest-by-tag", "a/head/blob-head", "b/range requests/range 500-", "a/referrers", "a/tag-list"]
    file = report(tmp_path, "direct", *((name, "passed") for name in writes + reads))
    assert set(read_report(file, "direct")) == set(reads)
