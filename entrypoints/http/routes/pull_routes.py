"""Routes for pulls: the API version check, manifests, blobs, tags, referrers and the catalog."""

from sanic import Blueprint, HTTPResponse, Request
from sanic.compat import Header

from application.access.access_request import Caller
from application.blobs.blob_query import BlobQuery
from application.listings import Listing
from application.manifests.manifest_query import ManifestQuery
from application.ports.telemetry import current_record
from domain.authorization import parse_authorization
from domain.byte_ranges import ByteRange, parse_ranges
from domain.errors import RequestInvalid
from domain.http_fields import bounded_warnings
from domain.upstream_table import RegistryHint
from entrypoints.http.delivery.body_delivery import deliver
from entrypoints.http.requests.pull_paths import (
    BlobPath,
    ManifestPath,
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
from entrypoints.http.responses.byte_ranges import content_range, multipart_body
from entrypoints.http.runtime import runtime_of

READ = ("GET", "HEAD")


def client_address(request: Request) -> str:
    """The address of the client. Also recorded for the request queue of an upstream, in which clients take turns."""
    address = runtime_of(request).addresses.client_of(request)
    current_record().client = address
    return address


def caller_of(request: Request) -> Caller:
    """The caller of the request. Raises RequestInvalid if there is more than one Authorization field, or if the field
    cannot be sent to an upstream.
    """
    lines = passed_on("Authorization", request.headers.getall("authorization", []))
    if len(lines) > 1:
        raise RequestInvalid("the request has more than one Authorization field")
    authorization = parse_authorization(lines[0] if lines else None)
    return Caller(authorization, runtime_of(request).addresses.realm_of(request), client_address(request))


async def ping(request: Request, prefix: str | None = None) -> HTTPResponse:
    request.ctx.route = "ping"
    container = runtime_of(request).container
    upstream = container.upstreams().upstream_of(hint_for(request, prefix))
    await container.answer_ping()(caller_of(request), upstream)
    return HTTPResponse(b"{}", 200, None, "application/json")


async def catalog(request: Request, prefix: str | None = None) -> HTTPResponse:
    request.ctx.route = "catalog"
    container = runtime_of(request).container
    upstream = container.upstreams().upstream_of(hint_for(request, prefix))
    listing = await container.listings().repositories(caller_of(request), upstream, paging(request))
    return _listing_answer(request, _base(prefix) + "_catalog", listing)


async def pull(request: Request, path: str, prefix: str | None = None) -> HTTPResponse | None:
    hint = hint_for(request, prefix)
    match parse_pull_path(path):
        case ManifestPath() as manifest:
            request.ctx.route = "manifest"
            return await _manifest(request, manifest, hint)
        case BlobPath() as blob:
            request.ctx.route = "blob"
            return await _blob(request, blob, hint)
        case TagsPath(name):
            request.ctx.route = "tags"
            listings = runtime_of(request).container.listings()
            listing = await listings.tags(caller_of(request), name, paging(request), hint)
            return _listing_answer(request, f"{_base(prefix)}{name}/tags/list", listing)
        case ReferrersPath(name, digest):
            request.ctx.route = "referrers"
            listings = runtime_of(request).container.listings()
            listing = await listings.referrers(caller_of(request), name, digest, paging(request), hint)
            return _listing_answer(request, f"{_base(prefix)}{name}/referrers/{digest}", listing)


def hint_for(request: Request, prefix: str | None = None) -> RegistryHint:
    """What the request says about the registry. Raises NameUnknown if that registry is not mirrored, RequestInvalid
    for an invalid Host.
    """
    runtime, namespace = runtime_of(request), namespace_of(request)
    hint = runtime.container.upstreams().hint_of(
        prefix=prefix, namespace=namespace, host=runtime.addresses.host_of(request)
    )
    request.ctx.namespace = namespace
    return hint


def _base(prefix: str | None) -> str:
    """The beginning of the paths that the client uses."""
    return f"/{prefix}/v2/" if prefix else "/v2/"


async def _manifest(request: Request, path: ManifestPath, hint: RegistryHint) -> HTTPResponse:
    known = known_digests(request)
    query = ManifestQuery(
        path.name, path.reference, accept_lines(request), request.method == "HEAD", known - {"*"}, hint
    )
    answer = await runtime_of(request).container.pull_manifest()(caller_of(request), query)
    request.ctx.is_content = True
    headers = _content_headers(str(answer.digest), answer.warnings)
    if path.reference.digest is None:
        headers["Vary"] = "Accept"  # the manifest of a tag depends on it
    if "*" in known or str(answer.digest) in known:
        return HTTPResponse(None, 304, headers, answer.media_type)
    # Conditional responses are not cached: the ResponseCache does not evaluate conditions.
    request.ctx.good_until = answer.good_until
    headers["Content-Length"] = str(answer.size)  # for a HEAD, Sanic would otherwise send a length of 0
    return HTTPResponse(answer.content, 200, headers, answer.media_type)


async def _blob(request: Request, path: BlobPath, hint: RegistryHint) -> HTTPResponse | None:
    known = bool(known_digests(request) & {"*", str(path.digest)})
    query = BlobQuery(path.name, path.digest, request.method == "HEAD", _byte_ranges(request, path), known, hint)
    async with runtime_of(request).container.pull_blob().open(caller_of(request), query) as blob:
        headers = _content_headers(str(blob.digest), blob.warnings)
        headers["Accept-Ranges"] = "bytes"
        if known:
            return HTTPResponse(None, 304, headers, blob.media_type)
        if blob.pieces is None:
            if blob.size is not None:
                headers["Content-Length"] = str(blob.size)
            return HTTPResponse(None, 200, headers, blob.media_type)
        request.ctx.is_content = True
        media_type, length, pieces = blob.media_type, blob.length, blob.pieces
        if len(blob.spans) > 1:
            media_type, length, pieces = multipart_body(blob, pieces)
        if length is not None:
            headers["Content-Length"] = str(length)
        if len(blob.spans) == 1:
            headers["Content-Range"] = content_range(blob.spans[0], blob.size)
        await deliver(request, 206 if blob.spans else 200, headers, media_type, pieces, damaged=blob.damaged)
    return None


def _byte_ranges(request: Request, path: BlobPath) -> tuple[ByteRange, ...]:
    """The requested ranges; none for a HEAD (RFC 9110 section 14.2), or if If-Range differs from our entity tag
    (section 13.1.5).
    """
    tag = str(path.digest)
    if request.method == "HEAD" or request.headers.get("if-range", tag).strip('"') != tag:
        return ()
    return parse_ranges(",".join(request.headers.getall("range", [])))


def _listing_answer(request: Request, path: str, listing: Listing) -> HTTPResponse:
    headers = _warning_headers(listing.warnings)
    if listing.next_query:
        headers["Link"] = link_to(path, listing.next_query, request.ctx.namespace)
    if listing.filters_applied:
        headers["OCI-Filters-Applied"] = listing.filters_applied
    return HTTPResponse(listing.content, 200, headers, listing.media_type)


def _content_headers(digest: str, warnings: tuple[str, ...]) -> Header:
    headers = _warning_headers(warnings)
    headers["Docker-Content-Digest"], headers["ETag"] = digest, f'"{digest}"'
    return headers


def _warning_headers(warnings: tuple[str, ...]) -> Header:
    """One Warning field per warning, because a text may contain commas."""
    return Header([("Warning", value) for value in bounded_warnings(warnings)])


async def prefixed(request: Request, prefix: str, path: str = "") -> HTTPResponse | None:
    """The same paths below the name of a registry: containerd and dockerd can use a mirror with such a path. One route
    serves them all, because Sanic tries routes that contain a regular expression in no fixed order.
    """
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
