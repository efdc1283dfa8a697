"""Reads a form that a client has sent."""

from urllib.parse import parse_qs

from sanic import Request
from sanic.request import RequestParameters

_FORM = "application/x-www-form-urlencoded"


def form_of(request: Request) -> RequestParameters:
    """The fields of the form. Raises ValueError with the reason if the body is none in UTF-8: replaced characters would
    turn a password into a wrong one, and Sanic logs each such form with a traceback.
    """
    if request.content_type.partition(";")[0].strip().lower() != _FORM:
        raise ValueError(f"the body must be of the type {_FORM}")
    try:
        return RequestParameters(parse_qs(request.body.decode(), errors="strict"))
    except ValueError as error:
        raise ValueError("the form is not UTF-8") from error
