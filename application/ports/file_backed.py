"""Marks open content that is a file of this machine, so that the kernel can copy it into a connection.

Only the storage, which opens files, and the delivery, which sends them, know of descriptors. import-linter enforces it.
"""


class FileBacked:
    """`descriptor` is open for reading until the content is closed."""

    descriptor: int
