"""The buffers for large bodies."""

import asyncio
from collections.abc import Iterator

import pytest

from adapters.upstream.receive_buffers import BUFFER_BYTES, ReceiveBuffers

REST = 0.05


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    running = asyncio.new_event_loop()
    yield running
    running.close()


@pytest.fixture
def buffers(loop: asyncio.AbstractEventLoop) -> ReceiveBuffers:
    return ReceiveBuffers(loop, REST)


def test_a_buffer_is_reused_when_no_view_of_it_exists(buffers: ReceiveBuffers) -> None:
    view = buffers.take()
    view[:3] = b"old"
    del view
    assert bytes(buffers.take()[:3]) == b"old"


def test_a_buffer_is_not_reused_while_a_piece_of_it_exists(buffers: ReceiveBuffers) -> None:
    pieces = [buffers.take()[5:8] for _ in range(50)]
    for number, piece in enumerate(pieces):
        piece[:] = bytes([number] * 3)
    assert [bytes(piece) for piece in pieces] == [bytes([number] * 3) for number in range(50)]


def test_every_buffer_has_the_same_size(buffers: ReceiveBuffers) -> None:
    assert [len(buffers.take()) for _ in range(3)] == [BUFFER_BYTES] * 3


def test_few_buffers_are_kept(buffers: ReceiveBuffers) -> None:
    views = [buffers.take() for _ in range(50)]
    for view in views:
        view[0] = 1
    views.clear()
    assert sum(view[0] for view in [buffers.take() for _ in range(50)]) < 20


def test_no_buffer_is_kept_when_none_was_taken_for_a_while(
    buffers: ReceiveBuffers, loop: asyncio.AbstractEventLoop
) -> None:
    for _ in range(2):
        piece = buffers.take()
        piece[0] = 1
        loop.run_until_complete(asyncio.sleep(3 * REST))
        assert piece[0] == 1
        del piece
        assert buffers.take()[0] == 0
        loop.run_until_complete(asyncio.sleep(3 * REST))


def test_a_buffer_is_kept_while_others_are_taken(buffers: ReceiveBuffers, loop: asyncio.AbstractEventLoop) -> None:
    buffers.take()[0] = 1
    for _ in range(10):
        loop.run_until_complete(asyncio.sleep(REST / 2))
        assert buffers.take()[0] == 1
