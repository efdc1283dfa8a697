"""The buffers for large bodies."""

from adapters.upstream.receive_buffers import BUFFER_BYTES, ReceiveBuffers


def test_a_buffer_is_reused_when_no_view_of_it_exists() -> None:
    buffers = ReceiveBuffers()
    view = buffers.take()
    view[:3] = b"old"
    del view
    assert bytes(buffers.take()[:3]) == b"old"


def test_a_buffer_is_not_reused_while_a_piece_of_it_exists() -> None:
    buffers = ReceiveBuffers()
    pieces = [buffers.take()[5:8] for _ in range(50)]
    for number, piece in enumerate(pieces):
        piece[:] = bytes([number] * 3)
    assert [bytes(piece) for piece in pieces] == [bytes([number] * 3) for number in range(50)]


def test_every_buffer_has_the_same_size() -> None:
    buffers = ReceiveBuffers()
    assert [len(buffers.take()) for _ in range(3)] == [BUFFER_BYTES] * 3


def test_few_buffers_are_kept() -> None:
    buffers = ReceiveBuffers()
    views = [buffers.take() for _ in range(50)]
    for view in views:
        view[0] = 1
    views.clear()
    assert sum(view[0] for view in [buffers.take() for _ in range(50)]) < 20
