"""The console script."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from domain.access import Credentials
from domain.authorization import encode_basic
from entrypoints.commands.passwords import ask_password
from entrypoints.load_settings import load_settings
from entrypoints.settings_file import SettingsError
from entrypoints.version import NAME, VERSION

_WRONG_SETTINGS = 2
_INTERRUPTED = 130
"""As shells report an end by SIGINT: 128 and the number of the signal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for settings that stop the start, or 130 where Ctrl-C ended a command."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SettingsError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return _WRONG_SETTINGS
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME, description="A registry mirror. Settings come from the environment, and from a file."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the settings file, as CONFIG names it")
    parser.add_argument("--version", action="version", version=f"{NAME} {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="start the service")
    serve.set_defaults(run=_serve)
    check = commands.add_parser("check-config", help="check the settings, and the upstream that they name")
    check.set_defaults(run=_check)
    doctor = commands.add_parser("doctor", help="say what is wrong, and what to do about it")
    doctor.set_defaults(run=_doctor)
    doctor.add_argument("image", nargs="?", metavar="IMAGE", help="NAME[:TAG][@DIGEST] that is to be there")
    _add_cache_commands(commands)
    encode = commands.add_parser("encode-account", help="ask for a password and print the ACCOUNTS entry")
    encode.add_argument("user", metavar="USER")
    encode.set_defaults(run=_encode)
    for command in (serve, check, doctor):
        _add_config(command)
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    """Behind the command too, where most people look for it."""
    command.add_argument("--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _add_cache_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    cache = commands.add_parser("cache", help="look into the cache, and put it right")
    cache.set_defaults(run=_cache)
    kinds = cache.add_subparsers(required=True, metavar="COMMAND", dest="command")
    kinds.add_parser("stats", help="how much is there, and how much may be")
    kinds.add_parser("ls", help="the tags that were asked for, and how much of each is there")
    kinds.add_parser("verify", help="hash everything again, and drop what is damaged")
    purge = kinds.add_parser("purge", help="drop an image, or all of a repository")
    purge.add_argument("image", metavar="IMAGE", help="NAME, or NAME:TAG")
    prune = kinds.add_parser("prune", help="drop what was not used for long, and what a crash left behind")
    prune.add_argument("--older-than", type=float, default=30, metavar="DAYS", help="30 where not said")
    warm = commands.add_parser("warm", help="pull images into the cache ahead of time")
    warm.set_defaults(run=_warm)
    warm.add_argument("images", nargs="+", metavar="IMAGE", help="NAME[:TAG][@DIGEST], as clients name it here")
    warm.add_argument("--platform", metavar="OS/ARCHITECTURE", help="only this one, such as linux/amd64; else all")
    for command in (cache, *kinds.choices.values(), warm):
        _add_config(command)
    warm.add_argument("--user", metavar="USER", help="pull as this user; the password is asked for")


def _serve(options: argparse.Namespace) -> int:
    settings = load_settings(options.config)
    for warning in settings.warnings:
        print(f"{NAME}: {warning}", file=sys.stderr)
    from entrypoints.server.run import run  # noqa: PLC0415 - the other commands need no server

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
    from entrypoints.commands.cache import run_cache_command  # noqa: PLC0415 - as above

    return run_cache_command(settings, options)


def _warm(options: argparse.Namespace) -> int:
    settings = load_settings(options.config)
    from entrypoints.commands.warm import run_warm_command  # noqa: PLC0415 - as above

    return run_warm_command(settings, options)


def _encode(options: argparse.Namespace) -> int:
    if not options.user or ":" in options.user:
        print(f"{NAME}: a user name holds no colon (RFC 7617)", file=sys.stderr)
        return _WRONG_SETTINGS
    try:
        print(encode_basic(Credentials(options.user, ask_password(options.user))))
    except UnicodeDecodeError:
        print(f"{NAME}: the password is not UTF-8 text", file=sys.stderr)
        return _WRONG_SETTINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
