"""Error responses: the table of HTTP statuses, and the error body of the OCI distribution specification."""

import logging
from typing import Any

from sanic import HTTPResponse, Request
from sanic.exceptions import (
    BadRequest,
    HeaderExpectationFailed,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RequestCancelled,
    RequestTimeout,
    SanicException,
)

from domain.allowance import seconds_to_wait
from domain.challenge import Challenge
from domain.documents import print_json
from domain.errors import (
    ClientFault,
    ContentUnknown,
    CredentialsRejected,
    Denied,
    JobRunning,
    MirrorBusy,
    MirrorFault,
    PathUnknown,
    RangeUnsatisfiable,
    RegistryError,
    RequestNotSent,
    TokenEndpointAbsent,
    TooManyAttempts,
    Unauthorized,
    UpstreamAuthUnknown,
    UpstreamChallenged,
    UpstreamFault,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimedOut,
)
from entrypoints.http.access_log import CLIENT_LEFT

_LOG = logging.getLogger("docker_image_proxy")

# After 502 and 504, clients use the next registry at once; 500 and 503 they retry.
# The first class that matches the error decides.
STATUSES: tuple[tuple[type[RegistryError], int], ...] = (
    (Unauthorized, 401),
    (CredentialsRejected, 401),
    (UpstreamChallenged, 401),
    (Denied, 403),
    (TokenEndpointAbsent, 404),
    (PathUnknown, 404),
    (ContentUnknown, 404),
    (RangeUnsatisfiable, 416),
    (TooManyAttempts, 429),
    (ClientFault, 400),
    (UpstreamRejected, 400),
    (UpstreamThrottled, 429),
    (MirrorBusy, 429),
    (UpstreamAuthUnknown, 503),
    (UpstreamTimedOut, 504),
    (UpstreamFault, 502),
    (JobRunning, 409),
    (RegistryError, 500),
)

SANIC_CODES: tuple[tuple[type[SanicException], str], ...] = (
    (NotFound, "UNSUPPORTED"),
    (MethodNotAllowed, "UNSUPPORTED"),
    (HeaderExpectationFailed, "UNSUPPORTED"),
    (PayloadTooLarge, "SIZE_INVALID"),
    (RequestTimeout, "UNAVAILABLE"),
    (BadRequest, "UNSUPPORTED"),
)


def status_of(kind: type[RegistryError]) -> int:
    """The HTTP status for errors of this class."""
    return next(status for base, status in STATUSES if issubclass(kind, base))


def answer_error(request: Request, error: BaseException) -> HTTPResponse:
    """The error handler of the application. Notes in the record of the request why it failed, and logs errors of the
    mirror itself.
    """
    match error:
        case RegistryError():
            if isinstance(error, UpstreamFault | MirrorFault):
                request.ctx.fault, request.ctx.fault_result = error.message, fault_result_of(error)
            if isinstance(error, RequestNotSent):
                _LOG.error("%s %s: %s", request.method, request.path, error.message, exc_info=error.__cause__)
            return error_response(error, request.ctx.runtime.settings.self_auth_service, _id_of(request))
        case RequestCancelled():
            # The client has left. The status appears in the log only; nginx introduced it.
            request.ctx.fault = CLIENT_LEFT
            return HTTPResponse(status=499)
        case SanicException():
            return sanic_error_response(error, _id_of(request))
    _LOG.error("%s %s", request.method, request.path, exc_info=error)
    detail = _with_id(None, _id_of(request))
    return _body(500, "UNKNOWN", "internal error of the mirror; its log has the details", detail)


def _id_of(request: Request) -> str:
    return request.ctx.record.request_id if hasattr(request.ctx, "record") else ""


def _with_id(detail: object, request_id: str) -> object:
    """The detail of an error with the id of the request, by which an operator finds the lines of the log. A detail that
    is neither an object nor a list, as only upstreams send it, stays as it is.
    """
    match detail:
        case None if request_id:
            return {"request_id": request_id}
        case dict() if request_id:
            return {**detail, "request_id": request_id}
        case list() | tuple() if request_id:
            return [*detail, {"request_id": request_id}]
    return detail


def fault_result_of(error: Exception) -> str:
    """For the metrics, whose fault the error is (domain/events.py, RESULTS)."""
    return "upstream_fault" if isinstance(error, UpstreamFault) else "mirror_fault"


def error_response(error: RegistryError, service: str, request_id: str = "") -> HTTPResponse:
    """The response to a rejected request. `service` is the realm of the Basic challenge of the token endpoint."""
    response = _body(status_of(type(error)), error.code, error.message, _with_id(error.detail, request_id))
    match error:
        case Unauthorized(challenges=challenges):
            _challenge(response, challenges)
        case CredentialsRejected():
            _challenge(response, (Challenge.of("Basic", realm=service),))
        case RangeUnsatisfiable(size=int(size)):
            response.headers["Content-Range"] = f"bytes */{size}"
        case TooManyAttempts(retry_after=seconds) | MirrorBusy(retry_after=seconds):
            response.headers["Retry-After"] = str(seconds)
        case UpstreamThrottled(retry_after=str(retry_after)) if seconds_to_wait(retry_after, 0.0) is not None:
            response.headers["Retry-After"] = retry_after  # seconds, or a date
    return response


def sanic_error_response(error: SanicException, request_id: str = "") -> HTTPResponse:
    """The response to a request that Sanic rejects: unknown paths, other methods, invalid syntax."""
    code = next((code for kind, code in SANIC_CODES if isinstance(error, kind)), "UNKNOWN")
    message = "this mirror is read-only" if isinstance(error, MethodNotAllowed) else str(error)
    response = _body(error.status_code, code, message, _with_id(None, request_id))
    response.headers.update(error.headers)
    return response


def error_body(code: str, message: str, detail: object) -> dict[str, Any]:
    """OCI distribution specification, section "Error Codes"."""
    error: dict[str, object] = {"code": code, "message": message}
    if detail is not None:
        error["detail"] = detail
    return {"errors": [error]}


def _body(status: int, code: str, message: str, detail: object) -> HTTPResponse:
    return HTTPResponse(print_json(error_body(code, message, detail)), status, content_type="application/json")


def _challenge(response: HTTPResponse, challenges: tuple[Challenge, ...]) -> None:
    """Send each challenge in a field of its own, Bearer first: most clients read only one challenge per field."""
    for challenge in sorted(challenges, key=lambda one: not one.is_bearer):
        response.headers.add("WWW-Authenticate", str(challenge))
    response.headers["Cache-Control"] = "no-store"
