"""The files that settings name: texts, accounts, certificates. Each Refusal says what is wrong with one."""

import ssl
import stat
from collections.abc import Iterable
from pathlib import Path

from domain.access import Credentials
from domain.htpasswd import parse_htpasswd
from entrypoints.settings.schema import Refusal


def read_text(path: Path) -> str:
    """Raises Refusal. Only regular files are opened: opening a pipe would wait for its writer, and a pipe has nothing
    left when the settings are read again, which could mean no accounts at all.
    """
    try:
        check_is_file(path)
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Refusal("cannot be read (not UTF-8 text)") from error
    except OSError as error:
        raise Refusal(f"cannot be read ({error.strerror})") from error


def check_is_file(path: Path) -> None:
    """Raises OSError, with a reason where the path leads to something else."""
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(0, "Is a directory")
    if not stat.S_ISREG(kind):
        raise OSError(0, "Is a pipe or a device, not a file")


def read_htpasswd(path: Path, accounts: Iterable[Credentials]) -> dict[str, str]:
    """The hash of each user. `accounts` are the accounts of other settings. Raises ValueError."""
    return parse_htpasswd(read_text(path), {account.username for account in accounts})


def check_key_pair(certificate: Path | None, key: Path | None, names: tuple[str, str]) -> None:
    """Raises ValueError where one is missing or does not fit the other. `names` are the two settings."""
    if (certificate is None) != (key is None):
        raise ValueError(f"{names[0]}: takes a file together with {names[1]}, or neither")
    if certificate and key:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{', '.join(names)}: got {str(certificate)!r}, {str(key)!r}; "
                "takes a PEM certificate and its PEM key without a passphrase"
            ) from error


def check_authorities(file: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except OSError as error:
        raise Refusal("takes a file of PEM certificates") from error
