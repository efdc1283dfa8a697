"""New settings reach every worker, whole, and the main process hears what became of them."""

import os
import select

import pytest

from entrypoints.server.shared_settings import SharedSettings
from tests.fakes.parts import SECRET, settings_of


def rings(board: SharedSettings, row: int) -> bool:
    return bool(select.select([board.bell(row)], [], [], 0)[0])


def test_every_bell_rings_until_it_is_heard() -> None:
    board = SharedSettings(2)
    assert not rings(board, 0)
    board.post(settings_of())
    board.post(settings_of())
    assert rings(board, 0)
    assert rings(board, 1)
    board.hear(0)
    board.hear(0)
    assert not rings(board, 0)
    assert rings(board, 1)


def test_what_is_posted_is_read_with_its_number_and_its_secrets() -> None:
    board = SharedSettings(1)
    assert board.read() is None
    long, short = settings_of(upstream_names=",".join(f"a{n}.test" for n in range(9999))), settings_of(tag_ttl=5)
    for number, settings in enumerate((long, short), start=1):
        board.post(settings)
        posted = board.read()
        assert posted is not None
        assert posted == (number, settings)
        assert posted.settings.server_secret.value == SECRET


def test_a_process_that_was_forked_before_reads_it_too_and_answers() -> None:
    board = SharedSettings(1)
    child = os.fork()
    if not child:
        select.select([board.bell(0)], [], [], 10)
        posted = board.read()
        board.answer(0, posted.number if posted else 0, taken=bool(posted and posted.settings.tag_ttl == 5))
        os._exit(0)
    board.post(settings_of(tag_ttl=5))
    os.waitpid(child, 0)
    assert board.is_answered
    assert board.missing == 0


def test_half_of_it_is_nothing() -> None:
    board = SharedSettings(1)
    board.post(settings_of())
    for size in (os.fstat(board._sheet).st_size - 1, 40, 10):
        os.ftruncate(board._sheet, size)
        assert board.read() is None


@pytest.mark.parametrize(
    ("answers", "is_answered", "missing"),
    [
        ([], False, 2),
        ([(0, True)], False, 1),
        ([(0, True), (1, False)], True, 1),
        ([(0, False), (0, True), (1, True)], True, 0),
    ],
)
def test_the_main_process_knows_who_has_them(
    answers: list[tuple[int, bool]], missing: int, *, is_answered: bool
) -> None:
    board = SharedSettings(2)
    for row in (0, 1):
        board.answer(row, 0, taken=True)
    board.post(settings_of())
    for row, taken in answers:
        board.answer(row, board.number, taken=taken)
    assert (board.is_answered, board.missing) == (is_answered, missing)
