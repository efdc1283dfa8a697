"""Dates in HTTP header fields."""

from email.utils import parsedate_to_datetime


def parse_http_date(field: str | None) -> float | None:
    """Seconds since 1970, of each of the three forms (RFC 9110 section 5.6.7); None where it is no date.

    The form of asctime names no time zone. All of them are UTC.
    """
    try:
        date = parsedate_to_datetime(field or "")
        return (date if date.tzinfo else parsedate_to_datetime(f"{field} GMT")).timestamp()
    except (ValueError, OverflowError):
        return None
