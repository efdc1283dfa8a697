"""Routes for pulls: the API version check, manifests, blobs, tags, referrers and the catalog."""

from sanic import Blueprint, HTTPResponse, Request
from sanic.compat import Header

from application.access.access_request import Caller
from application.blobs.blob_query import BlobQuery
from application.listings import Listing
from application.manifests.manifest_query import ManifestAnswer, ManifestQuery
from application.ports.telemetry import current_record
from domain.authorization import parse_authorization
from domain.content import ByteRange, parse_ranges
from domain.errors import RequestInvalid
from domain.http_fields import bounded_warnings
from domain.upstreams import RegistryHint
from entrypoints.http.delivery.body_delivery import deliver
from entrypoints.http.requests.pull_paths import (
    BlobPath,
    ManifestPath,
    PullPath,
    ReferrersPath,
    TagsPath,
    parse_pull_path,
)
from entrypoints.http.requests.request_parameters import (
    accept_lines,
    known_digests,
    link_to,
    namespace_of,
    paging,
    passed_on,
)
from entrypoints.http.responses.byte_ranges import body_of, content_range
from entrypoints.wiring.container import Container

READ = ("GET", "HEAD")


def client_address(request: Request) -> str:
    """The address of the client. Also recorded for the request queue of an upstream, in which clients take turns."""
    address: str = request.ctx.runtime.proxies.client_of(request)
    current_record().client = address
    return address


def caller_of(request: Request) -> Caller:
    """The caller of the request. Raises RequestInvalid if there is more than one Authorization field, or if the field
    cannot be sent to an upstream.
    """
    lines = passed_on("Authorization", request.headers.getall("authorization", []))
    if len(lines) > 1:
        raise RequestInvalid("the request has more than one Authorization field")
    authorization, runtime = parse_authorization(lines[0] if lines else None), request.ctx.runtime
    return Caller(authorization, runtime.realm.of(request), client_address(request))


async def ping(request: Request, prefix: str | None = None) -> HTTPResponse:
    container: Container = request.ctx.runtime.container
    upstream = container.upstreams().upstream_of(hint_for(request, prefix))
    await container.answer_ping()(caller_of(request), upstream)
    return _answer(200, "application/json", b"{}")


async def catalog(request: Request, prefix: str | None = None) -> HTTPResponse:
    container: Container = request.ctx.runtime.container
    upstream = container.upstreams().upstream_of(hint_for(request, prefix))
    listing = await container.listings().repositories(caller_of(request), upstream, paging(request))
    return _listing_answer(request, _base(prefix) + "_catalog", listing)


async def pull(request: Request, path: str, prefix: str | None = None) -> HTTPResponse | None:
    hint = hint_for(request, prefix)
    match parse_pull_path(path):
        case ManifestPath() as manifest:
            return await _manifest(request, manifest, hint)
        case BlobPath() as blob:
            return await _blob(request, blob, hint)
        case listed:
            return await _listing(request, listed, hint)


def hint_for(request: Request, prefix: str | None = None) -> RegistryHint:
    """How the request names the registry. Raises NameUnknown if that registry is not mirrored, RequestInvalid for an
    invalid Host.
    """
    hint = RegistryHint(prefix, namespace_of(request), request.ctx.runtime.realm.host_of(request))
    container: Container = request.ctx.runtime.container
    container.upstreams().upstream_of(hint)
    request.ctx.namespace = hint.namespace
    return hint


def _base(prefix: str | None) -> str:
    """The beginning of the paths that the client uses."""
    return f"/{prefix}/v2/" if prefix else "/v2/"


async def _manifest(request: Request, path: ManifestPath, hint: RegistryHint) -> HTTPResponse:
    container: Container = request.ctx.runtime.container
    known = known_digests(request)
    query = ManifestQuery(
        path.name, path.reference, accept_lines(request), request.method == "HEAD", known - {"*"}, hint
    )
    answer = await container.pull_manifest()(caller_of(request), query)
    request.ctx.is_content = True
    if "*" in known or str(answer.digest) in known:
        return _answer(304, answer.media_type, None, _manifest_headers(path, answer))
    # Conditional responses are not cached: the ResponseCache does not evaluate conditions.
    request.ctx.good_until = answer.good_until
    headers = _manifest_headers(path, answer)
    headers["Content-Length"] = str(answer.size)
    return _answer(200, answer.media_type, answer.content, headers)


def _manifest_headers(path: ManifestPath, answer: ManifestAnswer) -> Header:
    headers = _content_headers(str(answer.digest), answer.warnings)
    if path.reference.digest is None:
        headers["Vary"] = "Accept"  # the manifest of a tag depends on it
    return headers


async def _blob(request: Request, path: BlobPath, hint: RegistryHint) -> HTTPResponse | None:
    container: Container = request.ctx.runtime.container
    known = bool(known_digests(request) & {"*", str(path.digest)})
    ranges = _byte_ranges(request, path)
    one, several = (None, ranges) if len(ranges) > 1 else (next(iter(ranges), None), ())
    query = BlobQuery(path.name, path.digest, request.method == "HEAD", one, known, hint, several)
    async with container.pull_blob().open(caller_of(request), query) as blob:
        headers = _content_headers(str(blob.digest), blob.warnings)
        headers["Accept-Ranges"] = "bytes"
        if known:
            return _answer(304, blob.media_type, None, headers)
        if blob.pieces is None:
            if blob.size is not None:
                headers["Content-Length"] = str(blob.size)
            return _answer(200, blob.media_type, None, headers)
        request.ctx.is_content = True
        body = body_of(blob, blob.pieces)
        if body.length is not None:
            headers["Content-Length"] = str(body.length)
        if blob.span:
            headers["Content-Range"] = content_range(blob.span, blob.size)
        status = 206 if blob.span or blob.spans else 200
        await deliver(request, status, headers, body.media_type, body.pieces, damaged=blob.damaged)
    return None


def _byte_ranges(request: Request, path: BlobPath) -> tuple[ByteRange, ...]:
    """The requested ranges; none for a HEAD (RFC 9110 section 14.2), or if If-Range differs from our entity tag
    (section 13.1.5).
    """
    condition = request.headers.get("if-range")
    if request.method == "HEAD":
        return ()
    if condition is not None and condition.strip('"') != str(path.digest):
        return ()
    return parse_ranges(",".join(request.headers.getall("range", [])))


async def _listing(request: Request, path: PullPath, hint: RegistryHint) -> HTTPResponse:
    browse = request.ctx.runtime.container.listings()
    caller = caller_of(request)
    if isinstance(path, TagsPath):
        listing = await browse.tags(caller, path.name, paging(request), hint)
        return _listing_answer(request, f"{_base(hint.prefix)}{path.name}/tags/list", listing)
    assert isinstance(path, ReferrersPath)  # noqa: S101 - tells the type checker what the caller's match left over
    listing = await browse.referrers(caller, path.name, path.digest, paging(request), hint)
    return _listing_answer(request, f"{_base(hint.prefix)}{path.name}/referrers/{path.digest}", listing)


def _listing_answer(request: Request, path: str, listing: Listing) -> HTTPResponse:
    headers = _warning_headers(listing.warnings)
    if listing.next_query:
        headers["Link"] = link_to(path, listing.next_query, request.ctx.namespace)
    if listing.filters_applied:
        headers["OCI-Filters-Applied"] = listing.filters_applied
    return _answer(200, listing.media_type, listing.content, headers)


def _content_headers(digest: str, warnings: tuple[str, ...]) -> Header:
    headers = _warning_headers(warnings)
    headers["Docker-Content-Digest"], headers["ETag"] = digest, f'"{digest}"'
    return headers


def _warning_headers(warnings: tuple[str, ...]) -> Header:
    """One Warning field per warning, because a text may contain commas."""
    return Header([("Warning", value) for value in bounded_warnings(warnings)])


def _answer(status: int, media_type: str, content: bytes | None, headers: Header | None = None) -> HTTPResponse:
    """Content-Length stays as given: for a HEAD, Sanic would otherwise send a length of 0."""
    return HTTPResponse(content, status, headers, media_type)


async def prefixed(request: Request, prefix: str, path: str = "") -> HTTPResponse | None:
    """The same paths below the name of a registry: containerd and dockerd can use a mirror with such a path."""
    match path:
        case "":
            return await ping(request, prefix)
        case "_catalog":
            return await catalog(request, prefix)
    return await pull(request, path, prefix)


PREFIX = r"(?!v[12]/)[A-Za-z0-9.:-]+"
pulls = Blueprint("pulls")
pulls.add_route(ping, "/v2", methods=READ, name="ping_without_slash", strict_slashes=True)
pulls.add_route(ping, "/v2/", methods=READ, strict_slashes=True)
pulls.add_route(catalog, "/v2/_catalog", methods=READ)
pulls.add_route(pull, "/v2/<path:path>", methods=READ)
pulls.add_route(prefixed, f"/<prefix:{PREFIX}>/v2", methods=READ, name="prefixed_ping")
pulls.add_route(prefixed, f"/<prefix:{PREFIX}>/v2/<path:path>", methods=READ)
