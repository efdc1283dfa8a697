"""`init`: asks what a mirror needs to know, and writes a settings file that explains every setting."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from domain.known_registries import DOCKER_HUB, KNOWN_REGISTRIES
from entrypoints.commands.command_input import InvalidInput, encoded_account
from entrypoints.settings import Settings
from entrypoints.settings.sources import build_settings
from entrypoints.settings.templates import default_text, settings_file
from entrypoints.version import NAME

QUESTIONS = {
    "host": "The address to listen on (127.0.0.1: only this machine)",
    "port": "The port to listen on",
    "cache_dir": "The folder of the cache (off: no cache)",
    "cache_size": "The limit of the cache",
    "tls_cert": "The PEM file of the certificate (empty: no TLS)",
    "tls_key": "The PEM file of its key",
    "self_registry": "The address that clients use, such as https://mirror.example.com (empty: any)",
}
"""The settings that an option or an answer gives, by name."""


@dataclass(frozen=True)
class Draft:
    """What is given so far. `registries`: names or addresses. `accounts`: entries of `accounts`."""

    registries: tuple[str, ...] = ()
    accounts: tuple[str, ...] = field(default=(), repr=False)
    values: Mapping[str, str] = field(default_factory=dict)

    def upstreams(self) -> list[dict[str, object]]:
        """The tables of `upstreams`. The accounts are those of the mirror, so they are not sent to a registry."""
        identity = {"identity": "anonymous"} if self.accounts else {}
        names = self.registries or (DOCKER_HUB.name,)
        return [{"url" if "://" in name else "name": name, **identity} for name in names]

    def settings(self) -> Settings:
        """Raises ValueError with the message of the service about a wrong value."""
        return build_settings({**self._given(), "upstreams": self.upstreams()})

    def text(self) -> str:
        """The settings file. Numbers are numbers in it."""
        settings, given = self.settings(), self._given()
        numbers = {name: value for name in given if isinstance(value := getattr(settings, name), int)}
        return settings_file({**given, **numbers}, self.upstreams())

    def _given(self) -> dict[str, object]:
        given: dict[str, object] = {name: text for name, text in self.values.items() if text}
        return {**given, "accounts": list(self.accounts)} if self.accounts else given


def run(options: argparse.Namespace) -> int:
    """Returns the exit status, which is 0. Raises InvalidInput."""
    path: Path = options.file
    if path.exists() and not options.force:
        raise InvalidInput(f"{path} exists; --force replaces it")
    if not options.yes and not sys.stdin.isatty():
        raise InvalidInput("there is no terminal for questions; with --yes, the options and the defaults are used")
    draft = _given_by(options)
    if not options.yes:
        draft = _asked(draft)
    _write(path, draft.text(), replaces=options.force)
    print(f"wrote {path}. To check it, and to start the service:")
    print(f"  {NAME} --config {path} check-config\n  {NAME} --config {path} serve")
    return 0


def _given_by(options: argparse.Namespace) -> Draft:
    given = {name: getattr(options, name) for name in QUESTIONS}
    values = {name: text for name, text in given.items() if text is not None}
    draft = Draft(tuple(options.registry or ()), tuple(map(encoded_account, options.account or ())), values)
    try:
        draft.settings()
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    return draft


def _asked(draft: Draft) -> Draft:
    """The draft with the answers to all questions that no option has answered."""
    if not draft.registries:
        print(f"Well-known registries: {', '.join(KNOWN_REGISTRIES)}")
        draft = _until_valid(draft, _ask_registries)
    for name in ("host", "port", "cache_dir"):
        draft = _ask(draft, name)
    if draft.values.get("cache_dir") != "off":
        draft = _ask(draft, "cache_size")
    if "tls_cert" not in draft.values:
        draft = _until_valid(draft, _ask_tls)
    if not draft.accounts:
        draft = _until_valid(draft, _ask_accounts)
    return _ask(draft, "self_registry") if draft.accounts else draft


def _ask(draft: Draft, name: str) -> Draft:
    """Ask for one value, unless it is known."""
    if name in draft.values:
        return draft
    return _until_valid(draft, lambda known: _with(known, **{name: _answer(QUESTIONS[name], default_text(name))}))


def _ask_registries(draft: Draft) -> Draft:
    answer = _answer("The registries to mirror, separated by commas", DOCKER_HUB.name)
    return replace(draft, registries=tuple(word.strip() for word in answer.split(",") if word.strip()))


def _ask_tls(draft: Draft) -> Draft:
    certificate = _answer(QUESTIONS["tls_cert"])
    return _with(draft, tls_cert=certificate, tls_key=_answer(QUESTIONS["tls_key"])) if certificate else draft


def _ask_accounts(draft: Draft) -> Draft:
    users = _answer("The users that may use the mirror, separated by commas (empty: everyone)").split(",")
    entries = tuple(encoded_account(user.strip()) for user in users if user.strip())
    return replace(draft, accounts=entries)


def _with(draft: Draft, **values: str) -> Draft:
    return replace(draft, values={**draft.values, **values})


def _until_valid(draft: Draft, ask: Callable[[Draft], Draft]) -> Draft:
    while True:
        try:
            changed = ask(draft)
            changed.settings()
        except (ValueError, InvalidInput) as error:
            print(error)
        else:
            return changed


def _answer(question: str, default: str = "") -> str:
    """The answer without spaces around it; "" for none, and if it is the default, which the file then shows as such."""
    try:
        answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip()
    except EOFError as error:
        raise KeyboardInterrupt from error
    return "" if answer == default else answer


def _write(path: Path, text: str, *, replaces: bool) -> None:
    """Write a new file that only its owner can read, because it can contain passwords. Raises InvalidInput."""
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-") as file:
            file.write(text)
            file.flush()
            if replaces:
                path.unlink(missing_ok=True)
            os.link(file.name, path)  # fails if the file was made in the meantime
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written ({error.strerror})") from error
