"""Content digests, and the check that content matches its digest."""

import hashlib
import re
from typing import Self

from domain.errors import DigestInvalid
from domain.value import Value

# The registered algorithms and their length in hex digits (OCI image specification, descriptor.md).
_HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
ALGORITHMS = tuple(_HEX_DIGITS)
"""The algorithms that the mirror can verify."""

Bytes = bytes | memoryview
"""Bytes, or a view of a part of a larger buffer."""


class Digest(Value, frozen=True):
    """`algorithm:hex` with an algorithm that the mirror can verify."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises DigestInvalid for a malformed digest, an unknown algorithm, a wrong length or upper-case digits."""
        algorithm, _, encoded = text.partition(":")
        digits = _HEX_DIGITS.get(algorithm)
        if digits is None or not re.fullmatch(rf"[0-9a-f]{{{digits}}}", encoded):
            raise DigestInvalid("invalid or unsupported digest", detail={"digest": text[:160]})
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Self:
        """The digest of these bytes."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    @property
    def is_of_empty_content(self) -> bool:
        """Whether the digest is that of empty content."""
        return self.matches(b"")

    def matches(self, content: bytes) -> bool:
        return Digest.of(content, self.algorithm) == self

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


class DigestCheck:
    """An incremental hash of content that arrives in pieces, for the comparison with the expected digest."""

    def __init__(self, promised: Digest) -> None:
        self.promised = promised
        self._hash = hashlib.new(promised.algorithm)
        self.size = 0

    def update(self, piece: Bytes) -> None:
        self._hash.update(piece)
        self.size += len(piece)

    @property
    def holds(self) -> bool:
        """Whether the bytes so far match the expected digest."""
        return self._hash.hexdigest() == self.promised.encoded
