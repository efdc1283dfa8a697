"""FileBacked marks open content that is a local file, so that the kernel can copy it into a connection.

Only the storage, which opens files, and the delivery, which sends them, use descriptors. import-linter enforces this.
"""


class FileBacked:
    """`descriptor`: a file descriptor, open for reading until the content is closed."""

    descriptor: int
