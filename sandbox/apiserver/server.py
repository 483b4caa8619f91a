"""The HTTP side: requests in, Status objects and watches out."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web

from gpu_fraction.kube import resources
from gpu_fraction.kube.resources import CRDS
from gpu_fraction.sandbox.apiserver import discovery, failures, lifecycle, reading, scale, tables
from gpu_fraction.sandbox.apiserver.admission import Admission
from gpu_fraction.sandbox.apiserver.control import control
from gpu_fraction.sandbox.apiserver.failures import ApiFailure
from gpu_fraction.sandbox.apiserver.faults import (
    Action,
    Answer,
    DelayWatch,
    DropWatch,
    Faults,
    Hang,
    Late,
    Reset,
    Slow,
    Text,
)
from gpu_fraction.sandbox.apiserver.kinds import BUILT_IN, Kind, from_crd
from gpu_fraction.sandbox.apiserver.routing import Routes, Target, verb_of
from gpu_fraction.sandbox.apiserver.storage import HISTORY, Object, Storage, Stored
from gpu_fraction.sandbox.apiserver.verbs import Verbs
from gpu_fraction.sandbox.apiserver.writes import Writes, caller_of

BODY_LIMIT_BYTES: Final = 3 * 2**20
"""Source: apiserver pkg/server/config.go, MaxRequestBodyBytes."""

BOOKMARK_PERIOD_S: Final = 60.0
"""Source: apiserver pkg/storage/cacher, defaultBookmarkFrequency."""

FIRST_NAMESPACES: Final = ("default", "kube-node-lease", "kube-public", "kube-system")


class ApiServer:
    """A server with its storage.

    Attributes:
        faults: what goes wrong.
        storage: the objects; :meth:`Storage.compact` makes old versions expire.
        admission: calls webhooks; its ``services`` say where Services answer.
        url: where it listens, once it does.
        calls: verb and resource of each request, for tests that count them.
    """

    def __init__(
        self,
        *,
        kinds: Iterable[Kind] = (),
        history: int = HISTORY,
        bookmark_period_s: float = BOOKMARK_PERIOD_S,
        tokens: Mapping[str, str] | None = None,
        version: Mapping[str, str] = discovery.VERSION,
    ) -> None:
        """Prepare a server with the built-in resources.

        Args:
            kinds: further resources; creating a CustomResourceDefinition adds one too.
            history: changes kept for watches.
            bookmark_period_s: seconds between bookmarks.
            tokens: user name for each bearer token; None lets everyone in.
            version: what ``/version`` says.
        """
        self.faults = Faults()
        self.storage = Storage(history=history)
        self.admission = Admission(self.storage)
        self.url = ""
        self.calls: list[tuple[str, str]] = []
        self.tokens = dict(tokens) if tokens is not None else None
        self._version = version
        self._routes = Routes((*BUILT_IN, *kinds))
        verbs = Verbs(self.storage, self.admission, self._committed)
        self._writes = Writes(self.storage, verbs, self._routes)
        self._bookmark_period_s = bookmark_period_s
        for name in FIRST_NAMESPACES:
            self.add_namespace(name)

    def register(self, kind: Kind) -> None:
        """Serve one more resource."""
        self._routes.add(kind)

    def add_namespace(self, name: str) -> None:
        """Create a namespace."""
        self.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def add(self, *objects: Object) -> None:
        """Create objects without a request: no admission, status kept, names taken replaced.

        Raises:
            ValueError: a kind that is not served.
        """
        for obj in objects:
            kind = self._kind_of(obj)
            whole = lifecycle.identify(kind, obj, datetime.now(UTC))
            if "status" in obj:
                whole["status"] = obj["status"]
            metadata = whole["metadata"]
            stored = self.storage.put(
                kind, (metadata.get("namespace", ""), metadata["name"]), whole
            )
            self._committed(kind, stored)

    def remove(self, resource: resources.Resource, name: str, namespace: str = "") -> None:
        """Remove an object without a request.

        Raises:
            KeyError: it is not there.
        """
        self.storage.delete(Kind(resource), (namespace, name))

    @asynccontextmanager
    async def serve(
        self, *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator["ApiServer"]:
        """Listen on loopback for as long as the context lasts.

        Args:
            port: TCP port; 0 for any free one.
            tls: serve HTTPS.
        """
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,  # a watcher that leaves is noticed at once
            shutdown_timeout=0.05,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
            await site.start()
            scheme = "https" if tls else "http"
            self.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._dispatch(request)
        except ApiFailure as failure:
            return _answer(failure.code, failure.status(), retry_after_s=failure.retry_after_s)
        except web.HTTPRequestEntityTooLarge:
            too_large = failures.of_code(413, "Request entity too large: limit is 3145728")
            return _answer(413, too_large.status())

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        user = self._authenticate(request)
        if request.path in {"/healthz", "/livez", "/readyz"}:
            return web.Response(text="ok")
        if request.path.startswith("/-/"):
            control(request.method, request.path, await request.read(), self.faults, self.storage)
            return _answer(200, {})
        if request.path == "/version":
            return _answer(200, dict(self._version))
        found = discovery.document(request.path, self._routes)
        if found is not None:
            return _answer(200, found)
        target = self._routes.find(request.raw_path.partition("?")[0])
        if target is None:
            raise failures.no_such_path()
        watching = request.query.get("watch", "") in {"true", "1"}
        verb = verb_of(request.method, target, watching=watching)
        self.calls.append((verb, target.kind.resource.qualified))
        action = self.faults.strike(target.call(verb))
        return await self._spoiled(
            request, action, lambda: self._serve(request, target, verb, user, action)
        )

    async def _spoiled(
        self,
        request: web.Request,
        action: Action | None,
        serve: Callable[[], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        match action:
            case Answer(code, message, retry_after_s):
                raise failures.of_code(code, message, retry_after_s=retry_after_s)
            case Text(code, body):
                return web.Response(status=code, text=body, content_type="text/html")
            case Hang():
                await asyncio.Event().wait()
            case Slow(delay_s):
                await asyncio.sleep(delay_s)
            case Late(delay_s):
                answer = await serve()
                await asyncio.sleep(delay_s)
                return answer
            case Reset(done):
                if done:
                    await serve()
                _break(request)
                return web.Response()
        return await serve()

    async def _serve(
        self, request: web.Request, target: Target, verb: str, user: str, action: Action | None
    ) -> web.StreamResponse:
        match verb:
            case "list":
                parsed = reading.Reading.parse(target, request.query)
                body = reading.list_objects(self.storage, parsed)
                if tables.ASKED in request.headers.get("Accept", ""):
                    listed = msgspec.json.decode(body)
                    found, metadata = listed["items"], listed["metadata"]
                    body = tables.answer(target.kind, found, metadata, datetime.now(UTC))
                return web.Response(body=body, content_type="application/json")
            case "watch":
                return await self._watch(request, target, action)
            case "get":
                return web.Response(
                    body=self._get(request, target), content_type="application/json"
                )
            case "create" | "update" | "patch" | "delete" | "deletecollection":
                caller = caller_of(request, user)
                code, obj = await self._writes.serve(request, target, verb, caller)
                return _answer(code, obj, warnings=caller.warnings)
            case _:
                raise failures.of_code(
                    405, "the server does not allow this method on the requested resource"
                )

    def _get(self, request: web.Request, target: Target) -> bytes:
        kinds = {"": True, "status": target.kind.status, "scale": target.kind.scale}
        if not kinds.get(target.subresource):
            raise failures.no_such_path()
        stored = self.storage.get(target.kind, target.key)
        if stored is None:
            raise failures.not_found(target.kind.resource, target.name)
        if target.subresource == "scale":
            return msgspec.json.encode(scale.of(stored.body))
        if tables.ASKED in request.headers.get("Accept", ""):
            return tables.answer(target.kind, [stored.body], {}, datetime.now(UTC))
        return stored.encoded

    async def _watch(
        self, request: web.Request, target: Target, action: Action | None
    ) -> web.StreamResponse:
        parsed = reading.Reading.parse(target, request.query)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        left = action.after_events if isinstance(action, DropWatch) else None
        batches = reading.events(self.storage, parsed, bookmark_period_s=self._bookmark_period_s)
        if left == 0:
            _break(request)
            return response
        async for lines in batches:
            if isinstance(action, DelayWatch):
                await asyncio.sleep(action.delay_s)
            if left is not None and len(lines) >= left:
                await response.write(b"".join(lines[:left]))
                _break(request)
                return response
            left = None if left is None else left - len(lines)
            await response.write(b"".join(lines))
        return response

    def _committed(self, kind: Kind, stored: Stored) -> None:
        if kind.resource == CRDS:
            self._routes.add(from_crd(stored.body))

    def _kind_of(self, obj: Object) -> Kind:
        wanted = obj["apiVersion"], obj["kind"]
        for kind in self._routes:
            if (kind.resource.api_version, kind.resource.kind) == wanted:
                return kind
        raise ValueError(f"{wanted[1]} of {wanted[0]} is not served")

    def _authenticate(self, request: web.Request) -> str:
        if self.tokens is None:
            return "system:admin"
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            raise failures.of_code(401)
        return self.tokens[token]


def _answer(
    code: int, body: Object, *, retry_after_s: int | None = None, warnings: Iterable[str] = ()
) -> web.Response:
    response = web.Response(
        status=code, body=msgspec.json.encode(body), content_type="application/json"
    )
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    for warning in warnings:
        quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response


def _break(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
