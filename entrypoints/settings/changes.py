"""What a reload changes in the settings of a running service."""

from dataclasses import dataclass
from typing import Any

from entrypoints.settings.model import Settings

_AT_START = ("host", "port", "workers")
"""The socket is opened once, and so is the memory that the workers share."""
_TLS = ("tls_cert", "tls_key")


@dataclass(frozen=True)
class Change:
    """`settings` take effect now. `changed` are the settings that differ from before, `held_back` those that would
    need a restart. Both are names only: values may be secrets.
    """

    settings: Settings
    changed: tuple[str, ...]
    held_back: tuple[str, ...]


def change_of(in_force: Settings, loaded: Settings) -> Change:
    """Raises SettingsError where values that stay until a restart contradict new ones."""
    held_back = [name for name in _AT_START if getattr(in_force, name) != getattr(loaded, name)]
    if (in_force.tls_cert is None) != (loaded.tls_cert is None):
        held_back += _TLS  # the clients of the open port speak either TLS or plain HTTP
    kept: dict[str, Any] = {name: getattr(in_force, name) for name in held_back}
    if in_force.server_secret.is_random and loaded.server_secret.is_random:
        # A random secret is another one at each load. The one in force has signed tokens.
        kept["server_secret"] = in_force.server_secret
    settings = loaded.keeping(kept)
    before, after = in_force.by_name(), settings.by_name()
    changed = sorted(name for name in after if before[name] != after[name])
    return Change(settings, tuple(changed), tuple(map(str.upper, held_back)))
