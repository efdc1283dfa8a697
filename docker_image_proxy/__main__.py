"""The program: the console script, and `python -m docker_image_proxy`."""

import sys


def main() -> int:
    """An installation has the packages of this project in the folder `_packages`, so that other programs that import a
    `domain` of their own do not find ours. Here, ours come first. A checkout has no such folder: the packages are
    beside this one.
    """
    sys.path.insert(0, f"{__file__.rpartition('/')[0]}/_packages")
    from entrypoints.start import main as start  # noqa: PLC0415 - is found only now

    return start()


if __name__ == "__main__":
    sys.exit(main())
