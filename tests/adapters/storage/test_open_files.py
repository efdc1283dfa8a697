import asyncio
import os
from pathlib import Path

import pytest

from adapters.storage.open_files import DescriptorFile, write
from adapters.storage.threads import Threads
from application.ports.content import StorageRefused


def test_many_pieces_of_all_sizes_are_written_in_order(tmp_path: Path) -> None:
    sizes = [0, 1, 7, 1000, 70_000, 3]
    pieces = [bytes([number % 256]) * sizes[number % 6] for number in range(3000)]
    with (tmp_path / "file").open("w+b") as file:
        write(file.fileno(), [b"first"], 0)
        write(file.fileno(), pieces, 5)
        assert file.read() == b"first" + b"".join(pieces)


def test_writing_no_pieces_writes_nothing(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        write(file.fileno(), [b"", b""], 0)
        write(file.fileno(), [], 0)
        assert file.read() == b""


def test_a_closed_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    threads = Threads(1, "reads")
    file = DescriptorFile(os.open(tmp_path / "file", os.O_RDONLY), threads)
    assert asyncio.run(file.read(3, 99)) == b"tent"
    file.close()
    with (tmp_path / "file").open("rb") as stranger:
        file.close()
        with pytest.raises(StorageRefused):
            asyncio.run(file.read(0, 7))
        assert stranger.read() == b"content"
    threads.close()
