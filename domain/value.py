"""Value: the base of immutable values."""

import msgspec


class Value(msgspec.Struct, frozen=True):
    """Subclasses have the constructor, equality, hash and representation of a frozen dataclass. Python makes them in a
    fraction of the time, so the service starts faster (docs/decisions/0034-values-are-structs.md). A class that needs
    `field`, `__post_init__`, a cached property or `dataclasses.replace` is a dataclass.
    """


def fields_of(value: Value) -> dict[str, object]:
    """The fields of the value by their names."""
    return msgspec.structs.asdict(value)
