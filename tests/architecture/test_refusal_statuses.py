from collections.abc import Iterator

import pytest

from domain import errors
from domain.errors import RegistryError
from entrypoints.http.responses.error_responses import STATUSES, status_of

# The statuses are repeated here, so that each new refusal needs a decision about its status.
EXPECTED = {
    errors.RegistryError: 500,
    errors.ClientFault: 400,
    errors.NameInvalid: 400,
    errors.TagInvalid: 400,
    errors.DigestInvalid: 400,
    errors.PaginationInvalid: 400,
    errors.RangeMalformed: 400,
    errors.ScopeInvalid: 400,
    errors.RequestInvalid: 400,
    errors.RangeUnsatisfiable: 416,
    errors.PathUnknown: 404,
    errors.TokenEndpointAbsent: 404,
    errors.Unauthorized: 401,
    errors.CredentialsRejected: 401,
    errors.TooManyAttempts: 429,
    errors.Denied: 403,
    errors.ContentUnknown: 404,
    errors.NameUnknown: 404,
    errors.ManifestUnknown: 404,
    errors.BlobUnknown: 404,
    errors.ReferrersUnsupported: 404,
    errors.UpstreamFault: 502,
    errors.UpstreamUnavailable: 502,
    errors.UpstreamOutage: 502,
    errors.UpstreamUnreachable: 502,
    errors.UpstreamTimedOut: 504,
    errors.UpstreamBroken: 502,
    errors.UpstreamBodyTooLarge: 502,
    errors.UpstreamContentChanged: 502,
    errors.UpstreamWrongPart: 502,
    errors.UpstreamRejected: 400,
    errors.UpstreamThrottled: 429,
    errors.UpstreamBackOff: 429,
    errors.UpstreamAuthUnknown: 503,
    errors.IdentityRejected: 502,
    errors.RealmNotTrusted: 502,
    errors.MirrorFault: 500,
    errors.RequestNotSent: 500,
    errors.ActionFailed: 500,
    errors.JobRunning: 409,
    errors.MirrorBusy: 429,
    errors.UpstreamChallenged: 401,
}
# The codes of the OCI distribution specification, section "Error Codes", and those of the distribution project.
CODES = {
    *("BLOB_UNKNOWN", "DIGEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "UNAUTHORIZED", "DENIED"),
    *("UNSUPPORTED", "TOOMANYREQUESTS", "TAG_INVALID", "PAGINATION_NUMBER_INVALID", "RANGE_INVALID", "UNAVAILABLE"),
    "UNKNOWN",
}


def every_refusal(kind: type[RegistryError] = RegistryError) -> Iterator[type[RegistryError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from every_refusal(subclass)


def ours() -> set[type[RegistryError]]:
    return {kind for kind in every_refusal() if not kind.__module__.startswith("tests.")}


def test_the_expected_statuses_contain_every_refusal() -> None:
    assert ours() == set(EXPECTED)


@pytest.mark.parametrize(
    ("kind", "status"), list(EXPECTED.items()), ids=lambda value: getattr(value, "__name__", value)
)
def test_a_refusal_has_its_expected_status(kind: type[RegistryError], status: int) -> None:
    assert status_of(kind) == status


def test_no_row_hides_a_later_one() -> None:
    kinds = [kind for kind, _ in STATUSES]
    hidden = [later for place, later in enumerate(kinds) if any(issubclass(later, one) for one in kinds[:place])]
    assert hidden == []


def test_every_row_has_the_expected_status() -> None:
    assert {kind: status for kind, status in STATUSES if EXPECTED[kind] != status} == {}


def test_every_refusal_has_a_known_code() -> None:
    assert {kind.__name__: kind.code for kind in ours() if kind.code not in CODES} == {}


def test_the_docstring_of_the_errors_names_every_refusal() -> None:
    drawn = errors.__doc__ or ""
    assert [kind.__name__ for kind in ours() if kind.__name__ not in drawn] == []


def test_every_refusal_is_defined_in_the_domain() -> None:
    assert {kind.__module__ for kind in ours()} == {"domain.errors"}
