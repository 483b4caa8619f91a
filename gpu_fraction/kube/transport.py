"""Sends requests to the API server: connections, credentials, deadlines.

The only retry here is one after a 401, with credentials that are read again.
"""

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import aiohttp
import structlog

from gpu_fraction.kube import errors
from gpu_fraction.kube.access import Access, AccessError, AccessSource
from gpu_fraction.kube.requests import Request

READ_BUFFER_BYTES: Final = 2**20
"""Bytes read ahead before the socket is paused. Chosen: a large object in few reads."""

LINE_LIMIT_BYTES: Final = 64 * 2**20
"""Longest watch line. Chosen: far above an object (etcd refuses 1.5 MiB by default), and a broken
server cannot fill the memory."""

IDLE_CONNECTION_S: Final = 60.0
"""Seconds an unused connection is kept. Chosen: below the 90 s after which the API server drops it
(apiserver/pkg/server/secure_serving.go), so that no request meets a connection just closed."""

_log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def success(self) -> bytes:
        """The body of a 2xx answer.

        Raises:
            errors.KubeError: what any other status means.
        """
        if 200 <= self.status < 300:
            return self.body
        raise errors.from_answer(self.status, self.headers, self.body)


class Transport:
    """Connections to one API server. Use as an async context manager."""

    def __init__(self, source: AccessSource, *, user_agent: str) -> None:
        """Prepare; nothing is read or opened before the context is entered.

        Args:
            source: the address and the credentials.
            user_agent: our name in audit logs and in API priority and fairness.
        """
        self._source = source
        self._user_agent = user_agent
        self._access = Access(server="")
        self._session: aiohttp.ClientSession | None = None
        self._retired: aiohttp.ClientSession | None = None
        self._found_at = 0.0
        self._logged = ""  # the failure to read credentials that was logged last
        self._finding = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Find the access.

        Raises:
            AccessError: there is no usable configuration.
        """
        await self._use(await self._source.find())
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._retired, self._session):
            if session is not None:
                await session.close()
        self._session = self._retired = None

    async def send(self, request: Request, *, timeout_s: float, begin_s: float) -> Answer:
        """Send a request and read the whole answer.

        Args:
            request: the request.
            timeout_s: seconds for all of it.
            begin_s: seconds for the answer to begin: a connection that hangs is noticed
                sooner than a long list takes to arrive.

        Raises:
            errors.DeadlineError: the answer did not begin or end in time.
            errors.TransportError: the connection failed.
        """

        async def exchange() -> Answer:
            response = await _within(self._open(request), request, min(begin_s, timeout_s))
            async with response:
                return await _read(response)

        return await _within(exchange(), request, timeout_s)

    @asynccontextmanager
    async def stream(
        self, request: Request, *, timeout_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an endless answer and iterate over its lines.

        Args:
            request: the request.
            timeout_s: seconds for the answer to begin. The lines have no limit, so the caller
                must detect silence.

        Raises:
            errors.KubeError: the server did not answer 2xx, or the connection failed.
        """
        response = await _within(self._open(request), request, timeout_s)
        try:
            if response.status != 200:
                (await _within(_read(response), request, timeout_s)).success()
            async with aclosing(_lines(response)) as lines:
                yield lines
        finally:
            response.close()  # not released for reuse: the rest of the answer has no end

    async def _open(self, request: Request) -> aiohttp.ClientResponse:
        """Send, and wait for the answer to begin; repeat after a 401 with fresh credentials."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._found_at > self._source.max_age_s:
            await self._find_again(older_than=loop.time())
        sent_at = loop.time()
        response = await self._send_once(request)
        if response.status != 401:
            return response
        if not await self._find_again(older_than=sent_at):
            return response
        response.release()
        return await self._send_once(request)

    async def _send_once(self, request: Request) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the transport is used outside of its context")
        access = self._access
        headers = [*access.headers]
        if request.body is not None:
            headers.append(("Content-Type", request.content_type))
        if access.authorization:
            headers.append(("Authorization", access.authorization))
        try:
            return await self._session.request(
                request.method,
                access.server + request.target,
                data=_payload(request.body),
                headers=headers,
                allow_redirects=False,  # they would carry the token to another host
                server_hostname=access.server_name or None,
                proxy=access.proxy or None,
            )
        except aiohttp.ClientConnectorError as error:
            raise errors.TransportError(f"{access.server}: {error}", sent=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(access.server, error) from error

    async def _find_again(self, *, older_than: float) -> bool:
        """Read the credentials again unless another request did; False where that failed."""
        async with self._finding:
            if self._found_at > older_than:
                return True
            try:
                await self._use(await self._source.find())
            except AccessError as error:
                # The present credentials may still be valid when the file cannot be read.
                if str(error) != self._logged:
                    _log.warning("kube.access_not_refreshed", error=str(error))
                self._logged = str(error)
                return False
            self._logged = ""
            return True

    async def _use(self, access: Access) -> None:
        if self._session is None or not access.same_connection(self._access):
            session = await self._connect(access)
            if self._retired is not None:
                await self._retired.close()
            # Requests and watches in progress end on their old connections.
            self._retired, self._session = self._session, session
        self._access = access
        self._found_at = asyncio.get_running_loop().time()

    async def _connect(self, access: Access) -> aiohttp.ClientSession:
        tls = await asyncio.to_thread(access.tls)
        connector = aiohttp.TCPConnector(
            ssl=tls if tls is not None else True, keepalive_timeout=IDLE_CONNECTION_S
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=READ_BUFFER_BYTES,
            headers={
                "User-Agent": self._user_agent,
                "Accept": "application/json",
                # Unpacking costs the event loop more than the bytes cost a cluster network.
                "Accept-Encoding": "identity",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
        )


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    """A body as aiohttp wants it: beyond 1 MiB bytes would be copied in one go, with a warning."""
    return io.BytesIO(body) if body is not None and len(body) > 2**20 else body


async def _read(response: aiohttp.ClientResponse) -> Answer:
    try:
        body = await response.read()
    except (aiohttp.ClientError, OSError) as error:
        raise _broken(str(response.url.origin()), error) from error
    return Answer(response.status, response.headers, body)


async def _within(work: Awaitable[T], request: Request, timeout_s: float) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        message = f"{request.verb} {request.address}: no answer in {timeout_s:g} s"
        raise errors.DeadlineError(message) from None


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The lines of an answer; each byte is scanned once, even in long lines."""
    parts: list[bytes] = []
    length = 0
    try:
        async for chunk in response.content.iter_any():
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                yield b"".join([*parts, end])
                parts, length = [], 0
            parts.append(rest)
            length += len(rest)
            if length > LINE_LIMIT_BYTES:
                raise errors.MalformedAnswerError(
                    f"a watch line is longer than {LINE_LIMIT_BYTES >> 20} MiB"
                )
    except (aiohttp.ClientError, OSError) as error:
        raise _broken(str(response.url.origin()), error) from error


def _broken(server: str, error: Exception) -> errors.TransportError:
    return errors.TransportError(f"{server}: {str(error) or type(error).__name__}", sent=True)
