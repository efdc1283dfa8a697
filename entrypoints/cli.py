"""The console program: parses the command line and runs a command."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from entrypoints.commands.command_input import InvalidInput, encoded_account
from entrypoints.settings import SettingsError, load_settings
from entrypoints.version import NAME, VERSION

_INVALID_SETTINGS_OR_INPUT = 2
_INTERRUPTED = 130
"""The status that shells report for SIGINT: 128 plus the number of the signal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: that of the command, 2 for invalid settings or input, or 130 for Ctrl-C."""
    options = command_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (SettingsError, InvalidInput) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return _INVALID_SETTINGS_OR_INPUT
    except KeyboardInterrupt:
        return _INTERRUPTED


def command_parser() -> argparse.ArgumentParser:
    """All commands with their arguments. docs/reference/commands.md is generated from it."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="A registry mirror. Settings come from the environment and from a file."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the settings file (as CONFIG)")
    parser.add_argument("--version", action="version", version=f"{NAME} {VERSION}")
    # Commands accept --config after their name, too.
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    commands.add_parser("serve", parents=[config], help="start the service").set_defaults(run=_serve)
    commands.add_parser("check-config", parents=[config], help="check the settings and each upstream")
    doctor = commands.add_parser(
        "doctor", parents=[config], help="look for problems and say what to do about each of them"
    )
    doctor.add_argument(
        "image", nargs="?", metavar="IMAGE", help="an image that clients should be able to pull, as NAME[:TAG][@DIGEST]"
    )
    cache = commands.add_parser("cache", parents=[config], help="inspect and maintain the cache")
    actions = cache.add_subparsers(required=True, metavar="COMMAND", dest="action")
    add_action = partial(_add_action, actions, config)
    add_action("stats", "show the size of the cache and its limit", "of the shared store; lists it completely")
    add_action(
        "ls",
        "list the tags that clients requested, and how much of each is cached",
        "the tags of all replicas, and how much of each is in the shared store",
    )
    add_action(
        "verify",
        "compute all digests again and remove damaged content",
        "in the shared store; reads it completely",
    )
    purge = add_action(
        "purge",
        "remove an image, or all images of a repository",
        "remove it from the shared store too, where it stays otherwise; other replicas keep the files in their folders",
    )
    purge.add_argument("image", metavar="IMAGE", help="NAME:TAG or NAME@DIGEST, or NAME for the whole repository")
    prune = add_action(
        "prune",
        "remove content that was not used for a while, and leftovers of a crash",
        "from the shared store, if no replica used it",
    )
    prune.add_argument(
        "--older-than", type=float, default=30, metavar="DAYS", help="unused for this many days; the default is 30"
    )
    _add_pins(partial(actions.add_parser, parents=[config]))
    warm = commands.add_parser("warm", parents=[config], help="pull images into the cache")
    warm.add_argument(
        "images", nargs="+", metavar="IMAGE", help="an image as clients of this mirror name it, as NAME[:TAG][@DIGEST]"
    )
    warm.add_argument(
        "--platform", metavar="OS/ARCHITECTURE", help="only this platform, such as linux/amd64; the default is all"
    )
    warm.add_argument(
        "--user",
        metavar="USER",
        help="pull as this user (asks for the password); the default is anonymous, or the mirror's own login",
    )
    encode = commands.add_parser("encode-account", help="ask for a password and print the entry for ACCOUNTS")
    encode.add_argument("user", metavar="USER")
    encode.set_defaults(run=_encode)
    _add_init(commands.add_parser("init", help="ask a few questions and write a settings file"))
    parser.set_defaults(run=_run)
    return parser


def _add_pins(add_action: Callable[..., argparse.ArgumentParser]) -> None:
    pin = add_action("pin", help="keep an image in the cache and up to date; pulls what is missing")
    pin.add_argument("image", metavar="IMAGE", help="an image as clients of this mirror name it, as for warm")
    pin.add_argument(
        "--platform",
        action="append",
        metavar="OS/ARCHITECTURE",
        help="a platform, such as linux/amd64, or all; can be repeated; the default is those that are cached, or all",
    )
    unpin = add_action("unpin", help="let an image be evicted again")
    unpin.add_argument("image", metavar="IMAGE", help="the pinned image, as `cache pins` shows it")
    pins = add_action("pins", help="list the pinned images, and the problem of each")
    for action in (pin, unpin, pins):
        action.set_defaults(shared=False)


def _add_init(init: argparse.ArgumentParser) -> None:
    init.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=Path("mirror.toml"),
        metavar="FILE",
        help="the file to write; the default is mirror.toml",
    )
    init.add_argument("--yes", action="store_true", help="ask nothing: use the options and the defaults")
    init.add_argument("--force", action="store_true", help="replace an existing file")
    init.add_argument(
        "--registry",
        action="append",
        metavar="NAME",
        help="a registry to mirror, by name or address; can be repeated; the default is docker.io",
    )
    init.add_argument("--host", metavar="ADDRESS", help="the address to listen on")
    init.add_argument("--port", metavar="PORT", help="the port to listen on")
    init.add_argument("--cache-dir", metavar="FOLDER", help="the folder of the cache, or off")
    init.add_argument("--cache-size", metavar="SIZE", help="the limit of the cache, such as 20GiB or 80%%")
    init.add_argument("--tls-cert", metavar="FILE", help="the PEM file of the certificate")
    init.add_argument("--tls-key", metavar="FILE", help="the PEM file of its key")
    init.add_argument("--self-registry", metavar="ADDRESS", help="the address at which clients reach the service")
    init.add_argument(
        "--account",
        action="append",
        metavar="USER",
        help="an account of the mirror, whose password is asked; can be repeated; the default is none",
    )
    init.set_defaults(run=_init)


def _add_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    config: argparse.ArgumentParser,
    name: str,
    text: str,
    shared: str,
) -> argparse.ArgumentParser:
    """A `cache` command. `shared`: what it does with --shared."""
    action = actions.add_parser(name, parents=[config], help=text)
    action.add_argument("--shared", action="store_true", help=shared)
    return action


def _serve(options: argparse.Namespace) -> int:
    settings = load_settings(options.config)
    for warning in settings.warnings:
        print(f"{NAME}: {warning}", file=sys.stderr)
    from entrypoints.wiring.authorities import authorities_prepared  # noqa: PLC0415 - other commands import less

    with authorities_prepared():
        from entrypoints.server.serve import run  # noqa: PLC0415 - as above, and it takes most of the start

    run(settings, partial(load_settings, options.config))
    return 0


def _run(options: argparse.Namespace) -> int:
    settings = load_settings(options.config)
    from entrypoints.commands import (  # noqa: PLC0415 - as above
        cache_commands,
        check_config,
        doctor,
        pin_commands,
        shared_cache_commands,
        warm_command,
    )

    match options.command:
        case "check-config":
            return check_config.run(settings)
        case "doctor":
            return doctor.run(settings, options.image)
        case "warm":
            return warm_command.run(settings, options)
        case "cache" if options.action in pin_commands.ACTIONS:
            return pin_commands.run(settings, options)
        case "cache" if options.shared:
            return shared_cache_commands.run(settings, options)
        case _:
            return cache_commands.run(settings, options)


def _encode(options: argparse.Namespace) -> int:
    print(encoded_account(options.user))
    return 0


def _init(options: argparse.Namespace) -> int:
    from entrypoints.commands import init_command  # noqa: PLC0415 - as above

    return init_command.run(options)


if __name__ == "__main__":
    sys.exit(main())
