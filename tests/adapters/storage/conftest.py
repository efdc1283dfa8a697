import threading

import pytest

from domain.digest import Bytes, DigestCheck


class HeldHash:
    """Each piece is hashed only when `go_on` is set. `has_begun`: a thread has come to that point."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_begun, self.go_on = threading.Event(), threading.Event()
        update = DigestCheck.update

        def held(check: DigestCheck, piece: Bytes) -> None:
            self.has_begun.set()
            assert self.go_on.wait(30)
            update(check, piece)

        monkeypatch.setattr(DigestCheck, "update", held)


@pytest.fixture
def held_hash(monkeypatch: pytest.MonkeyPatch) -> HeldHash:
    return HeldHash(monkeypatch)
