"""What becomes of a running service's settings when they are read anew."""

from dataclasses import dataclass

from entrypoints.settings import Settings

_AT_START = ("host", "port", "workers")
"""The socket is opened and the memory that workers share is made once."""
_TLS = ("tls_cert", "tls_key")


@dataclass(frozen=True)
class Change:
    """`settings` are to be in force from now on; the names of what differs from before, and of what would, but wants a
    restart. Names only: values may be secrets.
    """

    settings: Settings
    changed: tuple[str, ...]
    held_back: tuple[str, ...]


def change_of(in_force: Settings, loaded: Settings, *, had_secret: bool) -> Change:
    """`had_secret`: whether a SERVER_SECRET was set before. Raises SettingsError where what stays until a restart does
    not go together with the new rest.
    """
    held_back = [name for name in _AT_START if getattr(in_force, name) != getattr(loaded, name)]
    if (in_force.tls_cert is None) != (loaded.tls_cert is None):
        held_back += _TLS  # clients of the open port speak the one or the other
    kept = {name: getattr(in_force, name) for name in held_back}
    if not had_secret and not has_secret(loaded):
        # One made by chance was made again when they were loaded. The one in force has signed tokens.
        kept["server_secret"] = in_force.server_secret
    settings = loaded.keeping(kept)
    changed = [name for name in Settings.model_fields if getattr(in_force, name) != getattr(settings, name)]
    return Change(settings, _spoken(changed), _spoken(held_back))


def has_secret(loaded: Settings) -> bool:
    """Whether SERVER_SECRET is set; False where it is made by chance."""
    return "server_secret" in loaded.model_fields_set


def _spoken(names: list[str]) -> tuple[str, ...]:
    return tuple(name.upper() for name in names)
