"""The connection of one process to Redis or Valkey. It limits how long a request to Redis can delay a client."""

import asyncio
import errno
import hashlib
import math
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from application.ports.shared import SharedUnavailable
from application.ports.telemetry import EventSink
from application.ports.tracing import SpanKind, traced
from domain.events import SharedIndexLost, SharedIndexRecovered
from domain.redis_address import RedisAddress, RedisKind

WAIT = 0.25
"""Seconds that a request may wait for Redis, including the time to connect."""
TRIAL_AFTER = 5.0
"""Seconds after a failure until one request tries again."""
_CONNECTIONS = 16
_ROUNDS = 20
"""Of the event loop. A new connection with a login and a script needs fewer."""
_CLOSING = 1.0
"""Seconds in which a connection must close: TLS waits for the answer of the server."""
_VERSION = 1

_REASONS = (
    (AuthenticationError, "rejected the user name or the password"),
    (BusyLoadingError, "is still loading its data"),
    (ReadOnlyError, "is a replica, which accepts no writes"),
    (OutOfMemoryError, "has no memory left"),
    (NoPermissionError, "does not permit this user a command that the mirror needs"),
    (MasterNotFoundError, "(Sentinel) knows no primary, cannot be reached, or rejected the login"),
    (RedisClusterException, "cannot be used as a Redis Cluster"),
)

T = TypeVar("T")


def key(kind: str, tag: str, *rest: str) -> str:
    """The name of a key. All keys with the same tag are in the same slot of a cluster, so one script may use them.

    The name contains the version of the schema, so that two releases can use the same Redis during an upgrade.
    """
    return ":".join(("dip", str(_VERSION), kind, f"{{{tag}}}", *rest))


class RedisConnection:
    """Sends requests to Redis. A request waits at most `wait` seconds, and is never sent twice.

    A circuit breaker follows each failure: for `trial_after` seconds, all requests fail at once. Then one request tries
    again, over a new connection, because a connection that was idle during a partition may be dead. The first request
    opens the connections, so no connection exists before the fork of the workers.
    """

    def __init__(
        self, address: RedisAddress, events: EventSink, wait: float = WAIT, trial_after: float = TRIAL_AFTER
    ) -> None:
        self._address = address
        self._events = events
        self._wait = wait
        self._trial_after = trial_after
        self._client: _Client | None = None
        self._clients = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closing = asyncio.Event()
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._trial_at: float | None = None
        """The loop time from which Redis may be tried again; None if it works."""
        self._has_trial = False
        self._reason = ""

    @property
    def is_available(self) -> bool:
        """Whether the last request succeeded. True before the first request."""
        return self._trial_at is None

    @property
    def failure(self) -> str:
        """Why Redis is not available; "" if it is. Contains no credentials."""
        return "" if self.is_available else self._reason

    async def run(self, command: Callable[[Redis], Awaitable[T]], *, in_background: bool = False) -> T:
        """The result of the command, which gets the client of redis-py. Responses are bytes. For a Redis Cluster, the
        client is a RedisCluster, and all keys of the command must be in the same slot. Raises SharedUnavailable.

        `in_background`: no client waits for the result, so the request may try again before `trial_after`.
        """
        is_trial, begun_at = self._check(in_background), math.inf
        attributes = {"db.system.name": "redis", "mirror.index": str(self._address)}
        try:
            with traced("ask shared index", SpanKind.CLIENT, attributes):
                async with self._limited(), self._free:
                    if not (self.is_available or is_trial):  # it failed while this request waited for a connection
                        raise SharedUnavailable(self._reason)
                    begun_at = asyncio.get_running_loop().time()
                    result = await command(self._opened(is_trial))
        except (RedisError, RedisClusterException, OSError) as error:  # a TimeoutError is an OSError
            if isinstance(error, TimeoutError) and asyncio.get_running_loop().time() - begun_at < self._wait / 2:
                # Most of the time, the request waited for a connection, and the server has no part in that.
                raise SharedUnavailable(f"too many requests of this worker wait for {self._address}") from error
            self._record_failure(self._explained(error))
            raise SharedUnavailable(self._reason) from error
        finally:
            self._has_trial = self._has_trial and not is_trial
        if is_trial:
            self._trial_at = None
            self._events.emit(SharedIndexRecovered(str(self._address)))
        return result

    async def call(
        self,
        script: str,
        keys: Sequence[str],
        args: Sequence[str | int | float | bytes],
        *,
        in_background: bool = False,
    ) -> object:
        """The result of the Lua script. The keys must be in the same slot of a cluster. Raises SharedUnavailable.
        `in_background`: as for `run`.
        """
        name = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()

        async def evaluate(redis: Redis) -> object:
            try:
                return await redis.evalsha(name, len(keys), *keys, *args)
            except NoScriptError:  # a new server, or one after SCRIPT FLUSH
                return await redis.eval(script, len(keys), *keys, *args)

        return await self.run(evaluate, in_background=in_background)

    async def values(self, names: Sequence[str]) -> list[bytes | None]:
        """The values of these keys, which are strings. In a cluster, those of one slot are read at the same moment.
        Raises SharedUnavailable.
        """

        async def read(redis: Redis) -> list[bytes | None]:
            is_cluster = self._address.kind is RedisKind.CLUSTER
            found = await (cast("RedisCluster", redis).mget_nonatomic(names) if is_cluster else redis.mget(names))
            return cast("list[bytes | None]", found)

        return await self.run(read)

    async def close(self) -> None:
        """Close the connections. Never raises. A later request opens a new one."""
        self._is_closing.set()
        self._retire()
        if self._closing:
            await asyncio.wait(self._closing)

    def _check(self, in_background: bool) -> bool:  # noqa: FBT001 - private
        """Whether the current request is the trial. Raises SharedUnavailable while the breaker is open."""
        if self._trial_at is None:
            return False
        is_due = in_background or asyncio.get_running_loop().time() >= self._trial_at
        if self._has_trial or not is_due:
            raise SharedUnavailable(self._reason)
        self._has_trial = True
        return True

    @asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        """Ends the block with a TimeoutError after `wait` seconds.

        A busy or paused process must not blame Redis for its own delay, so answers that have arrived by then still
        count: the event loop first does the work that is ready, and if this takes long, the limit is extended once.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + self._wait
        timer: asyncio.Handle

        def expire(rounds: int) -> None:
            nonlocal timer
            if rounds:
                timer = loop.call_soon(expire, rounds - 1)
                return
            now = loop.time()
            is_late = now - due > self._wait / 5
            limit.reschedule(now + self._wait / 5 if is_late else now)

        async with asyncio.timeout(None) as limit:
            timer = loop.call_at(due, expire, _ROUNDS)
            try:
                yield
            finally:
                timer.cancel()

    def _opened(self, is_trial: bool) -> Redis:  # noqa: FBT001 - private
        if is_trial:
            self._retire()
        if self._client is None:
            self._client = _Client(self._address, self._wait, self._clients)
            self._clients += 1
        return self._client.redis

    def _retire(self) -> None:
        """Close the connections in the background, after the requests that use them have ended."""
        if self._client is not None:
            task = asyncio.get_running_loop().create_task(self._close_later(self._client))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._client = None

    async def _close_later(self, client: "_Client") -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_closing.wait(), 2 * self._wait)
        await client.close()

    def _record_failure(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        self._reason = reason
        if self._trial_at is None:
            self._events.emit(SharedIndexLost(str(self._address), reason))
        if self._trial_at is None or now >= self._trial_at:
            self._trial_at = now + self._trial_after

    def _explained(self, error: Exception) -> str:
        """The reason for the log. It contains no text of the error, which may contain arguments of the command."""
        reason = next((text for kind, text in _REASONS if isinstance(error, kind)), "")
        if isinstance(error, TimeoutError | RedisTimeoutError):
            reason = f"did not answer within {self._wait * 1000:.0f} ms"
        elif isinstance(error, ResponseError):
            reason = reason or f"refused a request: {_code(error)}"
        return f"{self._address} {reason or _connection_failure(error)}"


class _Client:
    """The clients of redis-py for one address. `number`: how many were created before; each starts with another node,
    because the first one may be the one that has failed.
    """

    def __init__(self, address: RedisAddress, wait: float, number: int) -> None:
        first = number % len(address.nodes)
        nodes = address.nodes[first:] + address.nodes[:first]
        self._sentinel: Sentinel | None = None
        self._cluster: RedisCluster | None = None
        if address.kind is RedisKind.CLUSTER:
            startup_nodes = [ClusterNode(host, port) for host, port in nodes]
            self._cluster = RedisCluster(startup_nodes=startup_nodes, **_arguments(address))
            self.redis = cast("Redis", self._cluster)  # it has the same methods
        elif address.kind is RedisKind.SENTINEL:
            sentinel_arguments = {
                **_arguments(address, has_login=address.is_sentinel_login),
                "socket_timeout": wait / 3,  # so that the next one can be asked if the first one is silent
                "socket_connect_timeout": wait / 3,
            }
            self._sentinel = Sentinel(nodes, sentinel_kwargs=sentinel_arguments, **_arguments(address))  # type: ignore[no-untyped-call]
            self.redis = self._sentinel.master_for(address.service, db=address.database)
        else:
            host, port = nodes[0]
            self.redis = Redis(host=host, port=port, db=address.database, **_arguments(address))

    async def close(self) -> None:
        closing: list[Awaitable[None]] = [self.redis.aclose()]
        if self._sentinel:
            closing.append(self._sentinel.aclose())
        if self._cluster:  # its aclose() does nothing after a failure
            nodes = self._cluster.nodes_manager
            closing += [nodes.aclose(), nodes.aclose("startup_nodes")]
        for each in closing:
            with suppress(RedisError, RedisClusterException, OSError):  # a TimeoutError is an OSError
                async with asyncio.timeout(_CLOSING):
                    await each


def _arguments(address: RedisAddress, *, has_login: bool = True) -> dict[str, Any]:
    """What all clients have in common. RedisConnection limits the time of requests, and `_Client.close` that of
    closing, so the sockets have no timeouts. The library must not retry: by default it waits for a silent server for
    half a minute.
    """
    tls = {"ssl": True, "ssl_ca_certs": address.ca_file or None} if address.uses_tls else {}
    login = {"username": address.username, "password": address.password} if has_login else {}
    return {
        **tls,
        **login,
        "protocol": 2,  # version 3 needs more requests for each new connection
        "driver_info": None,  # the same
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": None,
    }


def _code(error: ResponseError) -> str:
    """The code at the beginning of an error response, for example READONLY."""
    code = str(error).partition(" ")[0]
    return code if code.isascii() and code.isupper() else type(error).__name__


def _connection_failure(error: Exception) -> str:
    cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLError):
        return f"cannot be reached by TLS: {getattr(cause, 'verify_message', '') or cause.reason}"
    if isinstance(cause, OSError) and cause.errno and cause.errno in errno.errorcode:
        return f"cannot be reached: {os.strerror(cause.errno)}"
    return "cannot be reached, or closed the connection"
