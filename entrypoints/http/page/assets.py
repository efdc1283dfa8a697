"""The style sheets and scripts of the page. Their names contain a hash of their content, so that browsers can keep them
for ever.
"""

import gzip
import hashlib
from collections.abc import Iterator
from functools import cached_property
from importlib.resources.abc import Traversable

PATH = "/static/"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HASH_DIGITS = 16


class Asset:
    """One file. `name`: with the hash of its content."""

    def __init__(self, name: str, content: bytes) -> None:
        stem, _, suffix = name.rpartition(".")
        digest = hashlib.sha256(content).hexdigest()[:_HASH_DIGITS]
        self.content = content
        self.media_type = _MEDIA_TYPES[f".{suffix}"]
        self.name = f"{stem}.{digest}.{suffix}"

    @cached_property
    def compressed(self) -> bytes:
        """The content in the gzip format (RFC 1952)."""
        return gzip.compress(self.content, mtime=0)


class Assets:
    """All files below the folder that browsers load."""

    def __init__(self, folder: Traversable) -> None:
        files = {file.name: Asset(file.name, file.read_bytes()) for file in _files(folder)}
        self._paths = {name: PATH + asset.name for name, asset in files.items()}
        self._assets = {asset.name: asset for asset in files.values()}

    def path(self, file: str) -> str:
        """The path at which this file is served. Raises KeyError if there is no such file."""
        return self._paths[file]

    def find(self, name: str) -> Asset | None:
        """The file with this name, which contains the hash."""
        return self._assets.get(name)


def _files(folder: Traversable) -> Iterator[Traversable]:
    for one in folder.iterdir():
        if one.is_dir():
            yield from _files(one)
        elif one.name.endswith(tuple(_MEDIA_TYPES)):
            yield one
