"""The console script."""

import argparse
import getpass
import sys
from collections.abc import Sequence

from domain.access import Credentials
from domain.authorization import encode_basic
from entrypoints.settings import SettingsError, load_settings
from entrypoints.version import NAME, VERSION

_WRONG_SETTINGS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for settings that stop the start."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SettingsError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return _WRONG_SETTINGS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=NAME, description="A registry mirror. Settings come from the environment.")
    parser.add_argument("--version", action="version", version=f"{NAME} {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="start the service")
    serve.set_defaults(run=_serve)
    check = commands.add_parser("check-config", help="check the settings, and the upstream that they name")
    check.set_defaults(run=_check)
    encode = commands.add_parser("encode-account", help="ask for a password and print the ACCOUNTS entry")
    encode.add_argument("user", metavar="USER")
    encode.set_defaults(run=_encode)
    return parser


def _serve(_: argparse.Namespace) -> int:
    settings = load_settings()
    for warning in settings.warnings:
        print(f"{NAME}: {warning}", file=sys.stderr)
    from entrypoints.http.server import run  # noqa: PLC0415 - the other commands need no server

    run(settings)
    return 0


def _check(_: argparse.Namespace) -> int:
    settings = load_settings()
    from entrypoints.check_config import check_config  # noqa: PLC0415 - as above

    return check_config(settings)


def _encode(options: argparse.Namespace) -> int:
    if not options.user or ":" in options.user:
        print(f"{NAME}: a user name holds no colon (RFC 7617)", file=sys.stderr)
        return _WRONG_SETTINGS
    try:
        print(encode_basic(Credentials(options.user, _ask_password(options.user))))
    except UnicodeDecodeError:
        print(f"{NAME}: the password is not UTF-8 text", file=sys.stderr)
        return _WRONG_SETTINGS
    return 0


def _ask_password(user: str) -> str:
    """From the terminal, without showing it; else the first line of standard input."""
    if sys.stdin.isatty():
        return getpass.getpass(f"Password of {user}: ")
    return sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")


if __name__ == "__main__":
    sys.exit(main())
