"""What an operator types: image names and platforms on the command line, and passwords."""

import getpass
import sys
from collections.abc import Iterable

from domain.access import Credentials
from domain.authorization import encode_basic
from domain.digest import Digest
from domain.errors import ClientFault, RequestInvalid
from domain.manifests import parse_platform
from domain.names import Reference, RepositoryName, Tag


class InvalidInput(Exception):
    """An argument or a password that a command does not take. The message is one line for the user."""


def parse_image(text: str) -> tuple[RepositoryName, Reference | None]:
    """Parse NAME[:TAG][@DIGEST], with the name that clients of the mirror use. The reference is None if the text has
    neither a tag nor a digest.

    Raises InvalidInput, also for a registry's host in front of the name: the settings say which registry is mirrored.
    """
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    name = f"{head}{slash}{last}"
    try:
        if at:
            return RepositoryName(name), Reference(Digest.parse(digest))
        return RepositoryName(name), Reference(Tag(tag)) if colon else None
    except ClientFault as error:
        first = name.partition("/")[0]
        hint = "; leave out the host of the registry" if "." in first or ":" in first else ""
        raise InvalidInput(f"{text!r} is not an image name: {error.message}{hint}") from error


def parse_image_or_latest(text: str) -> tuple[RepositoryName, Reference]:
    """As `parse_image`. Without a reference, the tag is `latest`, as clients assume."""
    name, reference = parse_image(text)
    return name, reference or Reference(Tag("latest"))


def parse_platforms(texts: Iterable[str]) -> list[str]:
    """Parse `os/architecture[/variant]`. Raises InvalidInput."""
    try:
        return [parse_platform(text) for text in texts]
    except RequestInvalid as error:
        raise InvalidInput(error.message) from error


def ask_password(user: str) -> str:
    """Read the password from the terminal without echo, or from the first line of standard input if that is not a
    terminal. Raises InvalidInput.
    """
    if sys.stdin.isatty():
        return getpass.getpass(f"Password for {user}: ")
    try:
        return sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidInput("the password is not UTF-8 text") from error


def encoded_account(user: str) -> str:
    """The entry of ACCOUNTS for this user, with a password that it asks for. Raises InvalidInput."""
    if not user or ":" in user:
        raise InvalidInput("a user name must not be empty or contain a colon (RFC 7617)")
    return encode_basic(Credentials(user, ask_password(user)))
