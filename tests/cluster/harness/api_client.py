"""A small client of the API server for asynchronous tests: JSON in, JSON out."""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.cluster.harness.kubeconfig import Access
from tests.cluster.harness.kubectl import Manifest

_REQUEST_TIMEOUT_S = 60.0
_POLL_S = 0.05
JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class StatusError(Exception):
    """The API server refused; see RFC 9110 for ``code``.

    Attributes:
        code: HTTP status.
        reason: of the Status object, such as ``Conflict``; empty if there was none.
        message: of the Status object, or the body's text.
    """

    def __init__(self, code: int, body: bytes) -> None:
        try:
            status = json.loads(body)
            self.reason, self.message = status.get("reason", ""), status.get("message", "")
        except ValueError:
            self.reason, self.message = "", body.decode(errors="replace")
        self.code = code
        super().__init__(f"{code} {self.reason}: {self.message}")


class ApiClient:
    """Requests to one API server as one user; an asynchronous context manager.

    Paths are written out, as in ``/api/v1/namespaces/default/pods/web``.
    """

    def __init__(self, access: Access, user: str = "", group: str = "") -> None:
        """Speak as whoever the access is for, or have that one impersonate a user in a group."""
        trust = ssl.create_default_context(cafile=access.authority)
        headers = {"Impersonate-User": user, "Impersonate-Group": group} if user else {}
        if "token" in access.user:
            headers["Authorization"] = f"Bearer {access.user['token']}"
        else:
            trust.load_cert_chain(access.user["client-certificate"], access.user["client-key"])
        self._session = aiohttp.ClientSession(
            access.server,
            headers=headers,
            connector=aiohttp.TCPConnector(ssl=trust, limit=0),
            timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = JSON,
        **query: str,
    ) -> dict[str, Any]:
        """One request; returns the answer's object.

        Raises:
            StatusError: the answer's status is 400 or above.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept": JSON}
        async with self._session.request(
            method, path, data=data, headers=headers, params=query
        ) as answer:
            content = await answer.read()
        if answer.status >= 400:
            raise StatusError(answer.status, content)
        return dict(json.loads(content))

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """Reads an object or a list."""
        return await self.request("GET", path, **query)

    async def create(self, path: str, manifest: Manifest, **query: str) -> dict[str, Any]:
        """Creates an object in a collection."""
        return await self.request("POST", path, manifest, **query)

    async def replace(self, path: str, manifest: Manifest, **query: str) -> dict[str, Any]:
        """Replaces an object, under its ``resourceVersion`` if it has one."""
        return await self.request("PUT", path, manifest, **query)

    async def patch(
        self, path: str, patch: Any, content_type: str = MERGE_PATCH, **query: str
    ) -> dict[str, Any]:
        """Changes an object; the content type says how the patch is meant."""
        return await self.request("PATCH", path, patch, content_type=content_type, **query)

    async def apply(self, path: str, manifest: Manifest, manager: str = "test") -> dict[str, Any]:
        """Server-side apply to an object's own path."""
        query = {"fieldManager": manager, "force": "true"}
        return await self.request("PATCH", path, manifest, content_type=APPLY_PATCH, **query)

    async def delete(self, path: str, **query: str) -> dict[str, Any]:
        """Deletes an object."""
        return await self.request("DELETE", path, **query)

    async def wait_for(
        self,
        path: str,
        condition: Callable[[Mapping[str, Any]], bool],
        timeout_s: float = 90,
    ) -> dict[str, Any]:
        """Reads an object again and again until a condition holds; returns it.

        Raises:
            TimeoutError: it does not hold in time; the object's state is in the message.
        """
        seen: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    seen = await self.get(path)
                    if condition(seen):
                        return seen
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            state = json.dumps(seen.get("status"))
            raise TimeoutError(f"{path} after {timeout_s} s: {state}") from None
