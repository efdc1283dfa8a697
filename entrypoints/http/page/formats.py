"""How the page writes numbers and times: in forms that readers of every language understand."""

from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB")
_THOUSAND = 1000
_TEN = 10
_SHORT = 12


def size(count: float) -> str:
    """A number of bytes with three digits or fewer before the point, in decimal units as docker shows them."""
    value, unit = float(count), 0
    while value >= _THOUSAND - 0.5 and unit < len(_UNITS) - 1:
        value, unit = value / _THOUSAND, unit + 1
    digits = 1 if unit and value < _TEN else 0
    return f"{value:.{digits}f} {_UNITS[unit]}"


def time(seconds: float) -> str:
    """A time in seconds since 1970, as `2026-11-28 14:05 UTC`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def machine_time(seconds: float) -> str:
    """The same for the `datetime` attribute (RFC 3339)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def short(digest: object) -> str:
    """The algorithm and the first 12 digits of a digest, as docker shows them."""
    algorithm, _, encoded = str(digest).partition(":")
    return f"{algorithm}:{encoded[:_SHORT]}"


def duration(seconds: float) -> str:
    """A duration with two or three digits, as `0.4 ms`, `12 ms` or `3.5 s`."""
    value, unit = (seconds, "s") if seconds >= 1 else (seconds * 1000, "ms")
    digits = 1 if value < _TEN else 0
    return f"{value:.{digits}f} {unit}"


def percent(ratio: float) -> str:
    """A ratio from 0 to 1, as `97.5 %`. Only 1 is `100 %`."""
    tenths = 1000 if ratio >= 1 else min(999, round(ratio * 1000))
    return f"{tenths / 10:g} %"


def number(value: float) -> str:
    """A number that is 0 or greater, with one digit after the point if it is small and not whole."""
    return f"{value:.1f}" if 0 < value < _TEN else f"{value:.0f}"


def window(seconds: int) -> str:
    """A duration of minutes or hours, as `90 min` or `6 h`."""
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h" if hours and not rest else f"{seconds / 60:.0f} min"


FILTERS = {
    "size": size,
    "time": time,
    "machine_time": machine_time,
    "short": short,
    "duration": duration,
    "percent": percent,
    "number": number,
    "window": window,
}
