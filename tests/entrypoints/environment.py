"""Settings out of an environment that a test makes up."""

from collections.abc import Callable

import pytest

from entrypoints.settings import Settings, SettingsError
from tests.entrypoints.service import basic

Load = Callable[..., Settings]
Read = Callable[..., Settings]

ANN, BOB = basic("ann", "hunter2").split()[1], basic("bob", "hünter:3").split()[1]


def refusal(load: Load, **variables: str) -> str:
    """The message about these variables, which is one line."""
    with pytest.raises(SettingsError) as stopped:
        load(**variables)
    line = str(stopped.value)
    assert line.isprintable(), "more than one line"
    return line
