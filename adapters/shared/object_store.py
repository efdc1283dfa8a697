"""ObstoreSharedStore: the content that replicas share, in S3, Google Cloud Storage, Azure Blob Storage or a folder."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from obstore import Bytes as StoreBytes
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, S3Store

from adapters.shared.object_layout import (
    PARTS,
    RECORD_BYTES,
    RECORDS,
    digest_of_part,
    digest_of_record,
    folder_of_parts,
    folders,
    is_possible_part,
    parse_record,
    part_key,
    print_record,
    record_key,
    upstream_of_part,
)
from adapters.shared.store_breaker import TRIAL_SECONDS, StoreBreaker
from adapters.shared.store_errors import explained
from application.ports.shared import (
    SharedContentDamaged,
    SharedObject,
    SharedPart,
    SharedRecord,
    SharedUnavailable,
    StoredPart,
)
from application.ports.telemetry import EventSink
from application.ports.tracing import NO_SPAN, SpanKind, current_span
from domain.digest import Bytes, Digest
from domain.events import SharedStoreAsked
from domain.upstreams import Upstream

ObjectStore = S3Store | GCSStore | AzureStore | LocalStore | MemoryStore

_ANSWER_SECONDS = 2.0
"""How long a small request may take, and how long a large response may send less than _CHUNK_BYTES."""
_CHUNK_BYTES = 1024 * 1024
_UPLOAD_BYTES_PER_SECOND = _CHUNK_BYTES / _ANSWER_SECONDS
_LIST_SECONDS = 10.0
_LISTED = 1000
"""Objects of one response to a list request, which is the most that S3 sends."""
_REMOVED = 100
"""Objects that one call removes."""
_THREADS = 2
_GIVEN_UP_SECONDS = 0.2
"""obstore ends a cancelled request a moment later, in a thread that panics if the interpreter has ended by then."""
_SMALL_BYTES = 64 * 1024
"""The event loop computes hashes of fewer bytes and reads shorter records itself: a thread would take longer."""

# Not `client_options`: they would replace what obstore reads from the environment, for example AWS_ALLOW_HTTP. The time
# of a whole request is limited for each call.
_CLIENT: Any = {"connect_timeout": "1s"}
_RETRIES: Any = {
    "max_retries": 1,
    "retry_timeout": timedelta(seconds=_ANSWER_SECONDS),
    "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(milliseconds=200), "base": 2},
}

_MESSAGE_CHARACTERS = 300

T = TypeVar("T")


def open_object_store(address: str) -> ObjectStore:
    """The client of the store at `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or
    `file:///FOLDER`. obstore reads the login and further options from the environment variables of each store.

    Sends nothing. Raises ValueError if the address or an option is invalid.
    """
    scheme, _, rest = address.partition("://")
    bucket, _, folder = rest.partition("/")
    prefix = folder.rstrip("/") or None
    try:
        match scheme:
            case "s3":
                return S3Store(bucket, prefix=prefix, config=_s3_options(), retry_config=_RETRIES)
            case "gs":
                return GCSStore(bucket, prefix=prefix, config=_CLIENT, retry_config=_RETRIES)
            case "az":
                return AzureStore(bucket, prefix=prefix, config=_CLIENT, retry_config=_RETRIES)
            case "file":
                return LocalStore(f"/{folder}", mkdir=True)
    except (BaseError, OSError) as error:
        raise ValueError(f"{address}: {explained(error)}") from error
    raise ValueError(f"{address}: an object store has the scheme s3, gs, az or file")


def _s3_options() -> Any:
    """By default, S3 requests are signed without a SHA-256 of their body: it would be a third pass of SHA-256 over each
    part, and readers verify the part itself. Some bucket policies demand it: then AWS_UNSIGNED_PAYLOAD is false.
    """
    is_set = "AWS_UNSIGNED_PAYLOAD" in os.environ  # noqa: TID251 - obstore reads the options of the store there, too
    return _CLIENT if is_set else {**_CLIENT, "unsigned_payload": True}


class ObstoreSharedStore:
    """Implements SharedStore.

    Used only after the fork of the workers: obstore has threads, which a forked process does not have.
    """

    def __init__(
        self, store: ObjectStore, address: str, events: EventSink, trial_seconds: float = TRIAL_SECONDS
    ) -> None:
        """`address`: the address of the store for messages, without credentials. `trial_seconds`: see StoreBreaker."""
        self._store = store
        self._address = address
        self._events = events
        self._breaker = StoreBreaker(address, self._try, events, trial_seconds)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="shared-store")
        self._has_given_up = False
        """Whether a request was cancelled before its end."""

    @property
    def failure(self) -> str:
        """Why the store is not available; empty if it is. Contains no credentials."""
        return self._breaker.failure

    async def close(self) -> None:
        """Stop the background work."""
        await self._breaker.close()
        self._threads.shutdown(wait=False)
        if self._has_given_up:
            await asyncio.sleep(_GIVEN_UP_SECONDS)

    async def find(self, digest: Digest) -> SharedRecord | None:
        try:
            content = await self._read(record_key(digest), lambda size: size <= RECORD_BYTES)
        except FileNotFoundError:
            return None
        if content is None:
            return None
        return await self._step(sum(map(len, content)), lambda: parse_record(digest, b"".join(content)))

    async def put(self, digest: Digest, record: SharedRecord) -> None:
        content = await self._step(len(record.content or b""), lambda: print_record(record))
        await self._write(record_key(digest), content)

    async def drop(self, digest: Digest) -> None:
        await self.remove([record_key(digest)])

    async def put_part(
        self, upstream: Upstream, digest: Digest, lease_id: str, offset: int, content: Bytes
    ) -> SharedPart:
        self._breaker.check()
        sha256 = await self._step(len(content), lambda: hashlib.sha256(content).hexdigest())
        part = SharedPart(part_key(upstream, digest, lease_id, offset), offset, len(content), sha256)
        await self._write(part.key, content)
        return part

    async def get_part(self, part: SharedPart) -> bytes:
        if not is_possible_part(part):
            raise SharedContentDamaged(f"{part.key[:_MESSAGE_CHARACTERS]!r} is not the name of a part")
        try:
            pieces = await self._read(part.key, lambda size: size == part.size)
        except FileNotFoundError as error:
            raise SharedContentDamaged(f"{part.key} is missing") from error
        content = await self._step(part.size, lambda: _verified(pieces, part.sha256))
        if content is None:
            raise SharedContentDamaged(f"{part.key} has other bytes than were written")
        return content

    async def records(self, shard: str = "") -> AsyncIterator[tuple[Digest, SharedObject]]:
        async for found in self._list(folders(RECORDS, shard)):
            if digest := digest_of_record(found.key):
                yield digest, found

    async def parts(self, shard: str = "") -> AsyncIterator[StoredPart]:
        async for found in self._parts(folders(PARTS, shard)):
            yield found

    async def parts_of(self, digest: Digest) -> AsyncIterator[StoredPart]:
        async for found in self._parts([folder_of_parts(digest)]):
            yield found

    async def _parts(self, names: list[str]) -> AsyncIterator[StoredPart]:
        async for found in self._list(names):
            if digest := digest_of_part(found.key):
                upstream = upstream_of_part(found.key)
                yield StoredPart(found.key, found.size, found.changed_at, digest, upstream)

    async def remove(self, keys: list[str]) -> None:
        for start in range(0, len(keys), _REMOVED):
            batch = keys[start : start + _REMOVED]
            try:
                await self._call("delete", _LIST_SECONDS, partial(self._store.delete_async, batch))
            except FileNotFoundError:  # some stores stop at the first object that is missing, S3 does not
                await asyncio.gather(*(self._remove_one(key) for key in batch))

    async def _remove_one(self, key: str) -> None:
        with suppress(FileNotFoundError):
            await self._call("delete", _LIST_SECONDS, partial(self._store.delete_async, key))

    async def _read(self, key: str, is_right_size: Callable[[int], bool]) -> list[StoreBytes] | None:
        """The bytes of the object; None if it has another size, or ends early. Raises FileNotFoundError."""
        result = await self._call("get", _ANSWER_SECONDS, partial(self._store.get_async, key))
        size = result.meta["size"]
        if not is_right_size(size):
            return None
        stream, pieces, received = result.stream(min_chunk_size=_CHUNK_BYTES), [], 0
        while received < size and (piece := await self._call("", _ANSWER_SECONDS, partial(anext, stream, None))):
            pieces.append(piece)
            received += len(piece)
        return pieces if received == size else None

    async def _write(self, key: str, content: Bytes) -> None:
        seconds = _ANSWER_SECONDS + len(content) / _UPLOAD_BYTES_PER_SECOND
        # In one request, because an upload of several parts leaves objects that cannot be listed if it is interrupted.
        put = partial(self._store.put_async, key, content, use_multipart=False)
        try:
            await self._call("put", seconds, put)
        except FileNotFoundError as error:  # there is no such bucket
            raise self._failed(explained(error)) from error

    async def _list(self, names: list[str]) -> AsyncIterator[SharedObject]:
        """The objects in these folders."""
        for folder in names:
            self._breaker.check()
            stream = self._store.list(folder, chunk_size=_LISTED)
            while found := await self._listed(partial(anext, stream, None)):
                for each in found:
                    yield SharedObject(each["path"], each["size"], each["last_modified"].timestamp())

    async def _listed(self, following: Callable[[], Awaitable[Sequence[Any] | None]]) -> Sequence[Any] | None:
        try:
            return await self._call("list", _LIST_SECONDS, following)
        except FileNotFoundError as error:  # there is no such bucket
            raise self._failed(explained(error)) from error

    async def _call(self, operation: str, seconds: float, call: Callable[[], Awaitable[T]]) -> T:
        """The result of one call of the library. Raises SharedUnavailable, and FileNotFoundError. `operation`: see
        SharedStoreAsked; "" for the rest of a response, which is no request of its own.
        """
        self._breaker.check()
        result = ""  # if the caller is cancelled
        parent = current_span() if operation else NO_SPAN
        span = parent.child(f"{operation} shared store", SpanKind.CLIENT, {"mirror.store": self._address})
        try:
            answer = await self._limited(seconds, call)
            result = "ok"
        except FileNotFoundError:
            result = "missing"
            raise
        except SharedUnavailable as error:
            result = "failed"
            self._breaker.open(str(error))
            raise
        finally:
            if operation and result:
                self._events.emit(SharedStoreAsked(operation, result))
            span.set({"mirror.result": result})
            if result not in {"ok", "missing"}:
                span.fail(result or "cancelled")
            span.end()
        return answer

    async def _try(self) -> None:
        """The trial of the breaker. Lists objects that do not exist, because that fails if the bucket is missing."""
        stream = self._store.list(f"{RECORDS}/none", chunk_size=1)
        try:
            await self._limited(_ANSWER_SECONDS, partial(anext, stream, None))
        except FileNotFoundError as error:
            raise SharedUnavailable(f"{self._address}: {explained(error)}") from error

    async def _limited(self, seconds: float, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await call()
        except TimeoutError as error:
            self._has_given_up = True
            raise SharedUnavailable(f"{self._address}: no answer within {seconds:.0f} s") from error
        except asyncio.CancelledError:
            self._has_given_up = True
            raise
        except FileNotFoundError:
            raise
        except (BaseError, OSError, ValueError) as error:
            raise SharedUnavailable(f"{self._address}: {explained(error)}") from error

    def _failed(self, reason: str) -> SharedUnavailable:
        failure = SharedUnavailable(f"{self._address}: {reason}")
        self._breaker.open(str(failure))
        return failure

    async def _step(self, size: int, step: Callable[[], T]) -> T:
        """The result of work on so many bytes, in a thread if they are many."""
        if size < _SMALL_BYTES:
            return step()
        return await asyncio.get_running_loop().run_in_executor(self._threads, step)


def _verified(pieces: list[StoreBytes] | None, sha256: str) -> bytes | None:
    content = b"".join(pieces or [])
    return content if hashlib.sha256(content).hexdigest() == sha256 else None
