"""What settings have in files: secrets, accounts, certificates. Every ValueError here says what is wrong with one."""

import ssl
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from domain.access import Credentials
from domain.htpasswd import parse_htpasswd


def read_text(path: Path) -> str:
    """Raises ValueError. What is no file is not opened: the writer of a pipe would be waited for, and a pipe has
    nothing left when settings are read anew, which might mean no accounts at all.
    """
    try:
        check_is_file(path)
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("cannot be read (not UTF-8 text)") from error
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error


def check_is_file(path: Path) -> None:
    """Raises OSError, with a reason where it is something else."""
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(0, "Is a directory")
    if not stat.S_ISREG(kind):
        raise OSError(0, "Is no file but a pipe or a device")


def check_pem_path(path: Path) -> Path:
    try:
        check_is_file(path)
    except FileNotFoundError as error:
        raise ValueError("takes the path of a PEM file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot be read ({reason}); takes the path of a PEM file") from error
    return path


def read_secret_file(path: Path) -> str:
    """The file's text without the newline at its end, which every editor puts there."""
    try:
        return read_text(path).rstrip("\r\n")
    except ValueError as error:
        raise ValueError(f"{error}; takes the path of a file") from error


def read_htpasswd(path: Path, accounts: Iterable[Credentials]) -> dict[str, str]:
    """Each user's hash. `accounts` are those that are known from elsewhere. Raises ValueError."""
    return parse_htpasswd(read_text(path), {account.username for account in accounts})


def check_key_pair(certificate: Path, key: Path, settings: str = "TLS_CERT, TLS_KEY") -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{settings}: got {str(certificate)!r}, {str(key)!r}; "
            "takes a PEM certificate and its PEM key without a passphrase"
        ) from error


def check_client_pair(certificate: Path | None, key: Path | None, names: tuple[str, str]) -> None:
    """`names`: what the two settings are called where they stand."""
    if (certificate is None) != (key is None):
        raise ValueError(f"{names[0]}: takes a file together with {names[1]}, or neither")
    if certificate and key:
        check_key_pair(certificate, key, ", ".join(names))


def check_authorities(file: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except OSError as error:
        raise ValueError(f"UPSTREAM_CA: got {str(file)!r}; takes a file of PEM certificates") from error


PemFile = Annotated[Path, AfterValidator(check_pem_path)]
