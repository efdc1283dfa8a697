import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.storage.present_map import MAP_BYTES, SPANS_LIMIT, PresentMap, has_map, read_map
from domain.byte_ranges import Span
from domain.span_set import SpanSet

TOTAL = 1_000_003
SLOT = MAP_BYTES // 2
SLOT_WITH_ONE_SPAN = 8 + 8 + 8 + 4 + 16 + 4


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "partial blob", os.O_CREAT | os.O_RDWR, 0o600)
    yield opened
    os.close(opened)


def spaced(count: int, first: int = 0) -> SpanSet:
    return SpanSet(tuple(Span(start, start + 1) for start in range(first, first + 2 * count, 2)))


def present(descriptor: int) -> SpanSet | None:
    state = os.fstat(descriptor)
    content = read_map(descriptor, state.st_size) if has_map(state) else None
    return content.present if content else None


def test_a_map_is_read_as_it_was_recorded(descriptor: int) -> None:
    written = PresentMap(descriptor, TOTAL)
    assert not has_map(os.fstat(descriptor))
    for spans in (SpanSet.up_to(5), SpanSet(), spaced(SPANS_LIMIT), SpanSet.up_to(TOTAL)):
        written.record(spans)
        content = read_map(descriptor, os.fstat(descriptor).st_size)
        assert content
        assert (content.present, content.total) == (spans, TOTAL)
    assert os.fstat(descriptor).st_size == TOTAL + MAP_BYTES


def test_the_next_process_continues_the_map(descriptor: int) -> None:
    first = PresentMap(descriptor, TOTAL)
    for stop in range(3):
        first.record(SpanSet.up_to(stop))
    content = read_map(descriptor, os.fstat(descriptor).st_size)
    assert content
    second = PresentMap(descriptor, content.total, content)
    for stop in range(3, 6):
        second.record(SpanSet.up_to(stop))
        assert present(descriptor) == SpanSet.up_to(stop)


def test_the_mark_gives_no_user_more_rights(descriptor: int) -> None:
    PresentMap(descriptor, TOTAL).record(SpanSet())
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o777 == 0o600


@given(cut=st.integers(0, SLOT - 1), records=st.integers(2, 4), count=st.integers(0, SPANS_LIMIT))
def test_a_slot_that_was_not_written_completely_is_ignored(
    cut: int, records: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("map") / "partial blob"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    written = PresentMap(descriptor, TOTAL)
    for number in range(records):
        written.record(spaced(count, number))
    before = os.pread(descriptor, MAP_BYTES, TOTAL)
    written.record(SpanSet.up_to(TOTAL))
    after = os.pread(descriptor, MAP_BYTES, TOTAL)
    changed = 0 if before[:SLOT] != after[:SLOT] else SLOT
    # The process was killed after `cut` bytes of the slot.
    os.pwrite(descriptor, before[changed + cut : changed + SLOT], TOTAL + changed + cut)
    torn = os.pread(descriptor, MAP_BYTES, TOTAL)
    is_whole = torn[changed : changed + SLOT_WITH_ONE_SPAN] == after[changed : changed + SLOT_WITH_ONE_SPAN]
    assert present(descriptor) == (SpanSet.up_to(TOTAL) if is_whole else spaced(count, records - 1))
    os.close(descriptor)


def test_the_content_of_a_blob_is_not_read_as_a_map(descriptor: int) -> None:
    for size in (0, 10, MAP_BYTES, MAP_BYTES + 10):
        os.truncate(descriptor, size)
        assert read_map(descriptor, size) is None
    os.pwrite(descriptor, os.urandom(3 * MAP_BYTES), 0)
    assert read_map(descriptor, 3 * MAP_BYTES) is None


def test_a_map_at_another_place_is_not_valid(descriptor: int) -> None:
    """For instance, a slot that a longer blob contains."""
    PresentMap(descriptor, TOTAL).record(SpanSet.up_to(7))
    os.pwrite(descriptor, os.pread(descriptor, MAP_BYTES, TOTAL), TOTAL + MAP_BYTES)
    assert read_map(descriptor, TOTAL + 2 * MAP_BYTES) is None


def test_a_map_with_too_many_spans_contains_the_first_of_them(descriptor: int) -> None:
    written = PresentMap(descriptor, TOTAL)
    many = spaced(SPANS_LIMIT + 50)
    written.record(many)
    assert present(descriptor) == SpanSet(many.spans[: SPANS_LIMIT - 1])


def test_a_recorded_byte_stays_recorded_when_there_are_too_many_spans(descriptor: int) -> None:
    """Other processes may have read it."""
    written = PresentMap(descriptor, TOTAL)
    late = spaced(SPANS_LIMIT - 1, 10_000)
    written.record(late)
    grown = SpanSet.of([*late, *spaced(50, 100)])
    written.record(grown)
    assert present(descriptor) == late
    grown = grown.plus(Span(0, 3))
    written.record(grown)
    assert present(descriptor) == late.plus(Span(0, 3))
    written.record(grown.plus(Span(3, 200)))
    assert present(descriptor) == late.plus(Span(0, 200))


def test_a_map_never_contains_more_than_is_present_and_never_less_than_before(descriptor: int) -> None:
    lots, written = random.Random(1), PresentMap(descriptor, TOTAL)  # noqa: S311 - the same spans in each run
    there = before = SpanSet()
    counts = set()
    for _ in range(800):
        start = lots.randrange(3000)
        there = there.plus(Span(start, start + lots.randrange(1, 4)))
        written.record(there)
        recorded = present(descriptor)
        assert recorded is not None
        assert all(there.covers(each) for each in recorded)
        assert all(recorded.covers(each) for each in before)
        assert len(there.spans) > SPANS_LIMIT or recorded == there
        assert recorded.beginning == there.beginning
        before = recorded
        counts.add(len(recorded.spans))
    assert max(counts) >= SPANS_LIMIT - 1


def test_a_map_that_is_removed_while_it_is_read_is_not_valid(tmp_path: Path) -> None:
    """Another process removes it when the blob is whole; the size that was read before then includes it."""
    with (tmp_path / "blob").open("w+b", buffering=0) as file:
        file.truncate(TOTAL + MAP_BYTES)
        for left in (0, 10, MAP_BYTES - 1):
            file.truncate(TOTAL + left)
            assert read_map(file.fileno(), TOTAL + MAP_BYTES) is None
