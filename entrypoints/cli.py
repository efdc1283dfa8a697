"""The console program: parses the command line and runs a command."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from domain.access import Credentials
from domain.authorization import encode_basic
from entrypoints.commands.command_input import ask_password
from entrypoints.settings import SettingsError, load_settings
from entrypoints.version import NAME, VERSION

_INVALID_SETTINGS = 2
_INTERRUPTED = 130
"""The status that shells report for SIGINT: 128 plus the number of the signal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: that of the command, 2 for invalid settings, or 130 if Ctrl-C ended the command."""
    options = command_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SettingsError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return _INVALID_SETTINGS
    except KeyboardInterrupt:
        return _INTERRUPTED


def command_parser() -> argparse.ArgumentParser:
    """All commands with their arguments. docs/reference/commands.md is generated from it."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="A registry mirror. Settings come from the environment and from a file."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the settings file (as CONFIG)")
    parser.add_argument("--version", action="version", version=f"{NAME} {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="start the service")
    serve.set_defaults(run=_serve)
    check = commands.add_parser("check-config", help="check the settings and each upstream")
    check.set_defaults(run=_check)
    doctor = commands.add_parser("doctor", help="look for problems and say what to do about each of them")
    doctor.set_defaults(run=_doctor)
    doctor.add_argument(
        "image", nargs="?", metavar="IMAGE", help="an image that clients should be able to pull, as NAME[:TAG][@DIGEST]"
    )
    _add_cache_commands(commands)
    encode = commands.add_parser("encode-account", help="ask for a password and print the entry for ACCOUNTS")
    encode.add_argument("user", metavar="USER")
    encode.set_defaults(run=_encode)
    for command in (serve, check, doctor):
        _add_config(command)
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    """Accept --config after the command, too."""
    command.add_argument("--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _add_cache_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    cache = commands.add_parser("cache", help="inspect and maintain the cache")
    cache.set_defaults(run=_cache)
    kinds = cache.add_subparsers(required=True, metavar="COMMAND", dest="command")
    kinds.add_parser("stats", help="show the size of the cache and its limit")
    kinds.add_parser("ls", help="list the tags that clients requested, and how much of each is cached")
    kinds.add_parser("verify", help="compute all digests again and remove damaged content")
    purge = kinds.add_parser("purge", help="remove an image, or all images of a repository")
    purge.add_argument("image", metavar="IMAGE", help="NAME:TAG, or NAME for the whole repository")
    prune = kinds.add_parser("prune", help="remove content that was not used for a while, and leftovers of a crash")
    prune.add_argument(
        "--older-than", type=float, default=30, metavar="DAYS", help="unused for this many days; the default is 30"
    )
    warm = commands.add_parser("warm", help="pull images into the cache")
    warm.set_defaults(run=_warm)
    warm.add_argument(
        "images", nargs="+", metavar="IMAGE", help="an image as clients of this mirror name it, as NAME[:TAG][@DIGEST]"
    )
    warm.add_argument(
        "--platform", metavar="OS/ARCHITECTURE", help="only this platform, such as linux/amd64; the default is all"
    )
    for command in (cache, *kinds.choices.values(), warm):
        _add_config(command)
    warm.add_argument(
        "--user",
        metavar="USER",
        help="pull as this user (asks for the password); the default is anonymous, or the mirror's own login",
    )


def _serve(options: argparse.Namespace) -> int:
    settings = load_settings(options.config)
    for warning in settings.warnings:
        print(f"{NAME}: {warning}", file=sys.stderr)
    from entrypoints.server.serve import run  # noqa: PLC0415 - other commands do not import the server

    run(settings, partial(load_settings, options.config))
    return 0


def _check(options: argparse.Namespace) -> int:
    settings = load_settings(options.config)
    from entrypoints.commands.check_config import check_config  # noqa: PLC0415 - as above

    return check_config(settings)


def _doctor(options: argparse.Namespace) -> int:
    settings = load_settings(options.config)
    from entrypoints.commands.doctor import run_doctor  # noqa: PLC0415 - as above

    return run_doctor(settings, options.image)


def _cache(options: argparse.Namespace) -> int:
    settings = load_settings(options.config)
    from entrypoints.commands.cache_commands import run_cache_command  # noqa: PLC0415 - as above

    return run_cache_command(settings, options)


def _warm(options: argparse.Namespace) -> int:
    settings = load_settings(options.config)
    from entrypoints.commands.warm_command import run_warm_command  # noqa: PLC0415 - as above

    return run_warm_command(settings, options)


def _encode(options: argparse.Namespace) -> int:
    if not options.user or ":" in options.user:
        print(f"{NAME}: a user name must not be empty or contain a colon (RFC 7617)", file=sys.stderr)
        return _INVALID_SETTINGS
    try:
        print(encode_basic(Credentials(options.user, ask_password(options.user))))
    except UnicodeDecodeError:
        print(f"{NAME}: the password is not UTF-8 text", file=sys.stderr)
        return _INVALID_SETTINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
