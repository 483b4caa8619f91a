"""Typed requests to the API server, each with a deadline.

The caller names the type to decode into: a msgspec Struct of the fields it reads,
``dict[str, Any]`` for a whole manifest, or ``msgspec.Raw`` for the bytes.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec

from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.access import AccessSource, user_agent
from gpu_fraction.kube.listing import PAGE_SIZE, Listing, OnMalformed, decode_page
from gpu_fraction.kube.metrics import KubeMetrics
from gpu_fraction.kube.objects import decode
from gpu_fraction.kube.requests import Body, PatchKind, Request, Selection, WriteOptions
from gpu_fraction.kube.resources import Address
from gpu_fraction.kube.retry import RetryPolicy, failure_of
from gpu_fraction.kube.transport import Transport

T = TypeVar("T")

TIMEOUT_S: Final = 30.0
"""Seconds for a whole call with its retries. Chosen: below the 34 s that the API server gives
itself (apiserver/pkg/endpoints/handlers/rest.go, requestTimeoutUpperBound)."""

_LEADING_DIGITS: Final = re.compile(r"[0-9]{1,9}")


class ServerVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of apimachinery's version.Info that are read."""

    major: str = ""
    minor: str = ""


class Client:
    """The API server's verbs."""

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float = TIMEOUT_S,
        retry: RetryPolicy | None = None,
        observer: KubeMetrics | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Wrap a transport whose context is entered.

        Args:
            transport: the connections.
            timeout_s: seconds for a call that names no other deadline.
            retry: when to try again.
            observer: counts and times the requests.
            rng: the source of jitter.
        """
        self._transport = transport
        self._timeout_s = timeout_s
        self._retry = retry or RetryPolicy()
        self.observer = observer
        self.date = ""
        """Header Date of the newest answer: the server's clock; empty before the first."""
        self._rng = rng or random.SystemRandom()

    def with_retry(self, retry: RetryPolicy) -> "Client":
        """A client with the same connections and another retry policy."""
        return Client(
            self._transport,
            timeout_s=self._timeout_s,
            retry=retry,
            observer=self.observer,
            rng=self._rng,
        )

    async def get(self, address: Address, into: type[T], *, timeout_s: float | None = None) -> T:
        """Read one object; the answer reflects every finished write."""
        return decode(into, await self.send(requests.get(address), timeout_s=timeout_s))

    async def list(
        self,
        address: Address,
        into: type[T],
        selection: Selection = requests.EVERYTHING,
        *,
        page_size: int = PAGE_SIZE,
        on_malformed: OnMalformed | None = None,
        timeout_s: float | None = None,
    ) -> Listing[T]:
        """Read a whole collection.

        Where the version expires between two pages, everything is read again at once, as
        client-go does (tools/pager/pager.go, FullListIfExpired).

        Args:
            address: the collection.
            into: the type of the objects.
            selection: which objects.
            page_size: objects a request; 0 for all at once.
            on_malformed: called for each object that does not decode; None to raise.
            timeout_s: seconds for each page.
        """
        items: list[T] = []
        continuation = ""
        while True:
            request = requests.list_page(
                address, selection, limit=page_size, continuation=continuation
            )
            try:
                body = await self.send(request, timeout_s=timeout_s)
            except errors.GoneError:
                if not continuation:
                    raise
                items, continuation, page_size = [], "", 0
                continue
            page = decode_page(into, body, on_malformed)
            items += page.items or []
            continuation = page.metadata.continuation
            if not continuation:
                return Listing(page.metadata.resource_version, items)

    async def create(
        self,
        address: Address,
        body: Body,
        into: type[T],
        options: WriteOptions = requests.PLAIN_WRITE,
        *,
        timeout_s: float | None = None,
    ) -> T:
        """Create an object, or post to a subresource; see :func:`requests.create`."""
        request = requests.create(address, body, options)
        return decode(into, await self.send(request, timeout_s=timeout_s))

    async def replace(
        self,
        address: Address,
        body: Body,
        into: type[T],
        options: WriteOptions = requests.PLAIN_WRITE,
        *,
        timeout_s: float | None = None,
    ) -> T:
        """Write a whole object, refused with ConflictError if its resourceVersion is not current.

        After a lost answer the write is repeated and meets its own first try as a conflict.
        """
        request = requests.replace(address, body, options)
        return decode(into, await self.send(request, timeout_s=timeout_s))

    async def patch(
        self,
        address: Address,
        kind: PatchKind,
        body: Body | Iterable[Mapping[str, Any]],
        into: type[T],
        options: WriteOptions = requests.PLAIN_WRITE,
        *,
        timeout_s: float | None = None,
    ) -> T:
        """Change part of an object; see :func:`requests.patch`."""
        request = requests.patch(address, kind, body, options)
        return decode(into, await self.send(request, timeout_s=timeout_s))

    async def apply(
        self,
        address: Address,
        body: Body,
        into: type[T],
        *,
        field_manager: str,
        force: bool = False,
        timeout_s: float | None = None,
    ) -> T:
        """Server-side apply; see :func:`requests.apply`. A foreign field is a ConflictError."""
        request = requests.apply(address, body, field_manager=field_manager, force=force)
        return decode(into, await self.send(request, timeout_s=timeout_s))

    async def delete(
        self,
        address: Address,
        options: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> None:
        """Delete one object; see :func:`requests.delete`.

        After a lost answer the deletion is repeated and may end in NotFoundError.
        """
        await self.send(requests.delete(address, options), timeout_s=timeout_s)

    async def server_version(self, *, timeout_s: float | None = None) -> tuple[int, int]:
        """Major and minor version of the API server, such as ``(1, 36)``.

        Raises:
            errors.MalformedAnswerError: it names none.
        """
        body = await self.send(requests.get(requests.ServerPath("/version")), timeout_s=timeout_s)
        found = decode(ServerVersion, body)
        major = _LEADING_DIGITS.match(found.major)
        minor = _LEADING_DIGITS.match(found.minor)  # managed clusters write "36+"
        if major is None or minor is None:
            raise errors.MalformedAnswerError(f"/version: {found.major!r}, {found.minor!r}")
        return int(major[0]), int(minor[0])

    def watch(
        self, request: Request, *, open_timeout_s: float = 10.0
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The raw lines of a watch; :mod:`gpu_fraction.kube.reflector` parses them.

        Args:
            request: from :func:`requests.watch`.
            open_timeout_s: seconds for the stream to begin.
        """
        return self._transport.stream(request, timeout_s=open_timeout_s)

    async def send(self, request: Request, *, timeout_s: float | None = None) -> bytes:
        """Send a request, with retries where they are safe, and return the body.

        Raises:
            errors.KubeError: the failure of the last try; if the deadline cut that try short, with
                the failure before it, which shows the cause.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._timeout_s if timeout_s is None else timeout_s)
        failures: list[errors.TransientError] = []
        while not failures or loop.time() < deadline:
            try:
                return await self._try(request, deadline - loop.time())
            except errors.TransientError as error:
                failures.append(error)
                wait_s = self._retry.wait_s(request, error, len(failures), self._rng)
                if wait_s is None or loop.time() + wait_s >= deadline:
                    break
            await asyncio.sleep(wait_s)
        raise failure_of(failures)

    async def _try(self, request: Request, left_s: float) -> bytes:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        code = 0
        try:
            answer = await self._transport.send(
                request, timeout_s=left_s, begin_s=self._retry.attempt_timeout_s
            )
            code = answer.status
            self.date = answer.headers.get("Date", "")
            return answer.success()
        finally:
            if self.observer is not None:
                self.observer.answered(request, code, loop.time() - started_at)


@asynccontextmanager
async def connect(
    source: AccessSource,
    *,
    component: str,
    timeout_s: float = TIMEOUT_S,
    retry: RetryPolicy | None = None,
    observer: KubeMetrics | None = None,
) -> AsyncIterator[Client]:
    """A client for as long as the context lasts.

    Args:
        source: the address and the credentials.
        component: goes into the user agent, such as ``webhook``.
        timeout_s: seconds for a call that names no other deadline.
        retry: when to try again.
        observer: counts and times the requests.

    Raises:
        AccessError: there is no usable configuration.
    """
    async with Transport(source, user_agent=user_agent(component)) as transport:
        yield Client(transport, timeout_s=timeout_s, retry=retry, observer=observer)
