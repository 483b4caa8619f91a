"""The admission server's HTTP side.

Two kinds of no: an HTTP error is a bad call or a bug, and failurePolicy decides what becomes
of the request; ``allowed: false`` is the verdict on what a user wrote.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from gpu_fraction.serving.probes import add_probes
from gpu_fraction.webhook import review
from gpu_fraction.webhook.metrics import AdmissionMetrics

MAX_BODY_BYTES: Final = 8 << 20
"""The API server takes 3 MiB and sends object and oldObject (apiserver/pkg/server/config.go)."""

DEFAULT_TIMEOUT_S: Final = 10.0
"""Where the call says none (admissionregistration/v1 timeoutSeconds)."""

MARGIN_S: Final = 0.5
"""Kept back of the caller's timeout, so that the answer still reaches it: chosen."""

_TIMEOUT_CHARS: Final = 8
"""Of ``?timeout=``, as many as are looked at: a caller writes them."""

_NAME_CHARS: Final = 253
"""Of an object's name, as many as a valid one has (RFC 1123 subdomain): it is judged after us."""

OPERATIONS: Final = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})

JSON: Final = "application/json"

Decide = Callable[[review.AdmissionRequest], review.Answer | Awaitable[review.Answer]]
"""The verdict on a request: at once, or within the caller's time."""

Check = Callable[[], str | None]
"""A readiness check: None, or why this replica should get no traffic yet."""


class NotReady(Exception):  # noqa: N818 - a state, not a fault
    """This replica cannot answer now; another, or a later try, can.

    The API server repeats a call answered 503 with an integer Retry-After, same body and
    uid, inside its timeout (client-go rest/with_retry.go).
    """

    def __init__(self, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class AdmissionApp:
    """Routes of the admission server.

    Attributes:
        mutate: The verdict of ``/mutate``.
        validate: The verdict of ``/validate``.
        registry: Where metrics are collected.
        checks: What must hold before ``/readyz`` says so.
    """

    mutate: Decide
    validate: Decide
    registry: CollectorRegistry
    checks: Sequence[Check] = ()

    def build(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        metrics = AdmissionMetrics(self.registry)
        app.router.add_post("/mutate", _Handler("mutate", self.mutate, metrics).handle)
        app.router.add_post("/validate", _Handler("validate", self.validate, metrics).handle)
        add_probes(app, self.registry, ready=self._unready)
        return app

    def _unready(self) -> str:
        return "\n".join(reason for check in self.checks if (reason := check()) is not None)


class _Handler:
    """One path."""

    def __init__(self, path: str, decide: Decide, metrics: AdmissionMetrics) -> None:
        self._path = path
        self._decide = decide
        self._metrics = metrics
        self._seconds = metrics.seconds.labels(path)
        # Bound once: a lazy logger binds itself anew for each line.
        self._log = structlog.get_logger().bind(path=path)
        # Looked up once: finding a labelled counter costs more than counting.
        self._counts: dict[tuple[str, str], Counter] = {}

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one review."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + _budget_s(request)
        try:
            body = await _body(request, deadline)
            return await self._answer(body, loop, started, deadline)
        except TimeoutError:
            self._count("", "timeout")
            return _again("no time left", 0)
        except web.HTTPException:
            self._count("", "bad_call")
            raise
        except review.BadReview as e:
            self._count("", "bad_call")
            self._log.warning("admission.bad_call", reason=str(e))
            return web.Response(status=400, text=f"{e}\n")
        finally:
            self._seconds.observe(loop.time() - started)

    async def _answer(
        self, body: bytes, loop: asyncio.AbstractEventLoop, started: float, deadline: float
    ) -> web.Response:
        asked = review.decode(body)
        try:
            answer = self._decide(asked)
            if not isinstance(answer, review.Answer):
                async with asyncio.timeout_at(deadline):
                    answer = await answer
        except NotReady as e:
            self._count(asked.operation, "not_ready")
            return _again(str(e), e.retry_after_s)
        except (TimeoutError, review.BadReview):
            raise
        except Exception:  # noqa: BLE001 - logged below
            # The last line of defence: the API server gets a 500 and failurePolicy decides.
            self._count(asked.operation, "error")
            self._log.exception("admission.failed", uid=asked.uid)
            return web.Response(status=500, text="internal error\n")
        self._note(asked, answer, loop.time() - started)
        return web.Response(body=review.encode(asked.uid, answer), content_type=JSON)

    def _note(self, asked: review.AdmissionRequest, answer: review.Answer, took_s: float) -> None:
        decision = answer.audit.get("decision", "allowed" if answer.allowed else "refused")
        self._count(asked.operation, decision)
        log = self._log
        write = log.debug if decision == "allowed" and not answer.audit else log.info
        write(
            "admission.reviewed",
            uid=asked.uid,
            namespace=asked.namespace,
            name=asked.name and asked.name[:_NAME_CHARS],
            operation=asked.operation,
            subresource=asked.sub_resource,
            dry_run=asked.dry_run,
            decision=decision,
            backend=answer.audit.get("backend"),
            reason=answer.message[: review.MAX_MESSAGE_CHARS] or None,
            ms=round(took_s * 1000, 2),
        )

    def _count(self, operation: str, decision: str) -> None:
        counter = self._counts.get((operation, decision))
        if counter is None:
            known = operation if operation in OPERATIONS else "unknown"
            counter = self._metrics.reviews.labels(self._path, known, decision)
            if known == operation:
                self._counts[operation, decision] = counter
        counter.inc()


async def _body(request: web.Request, deadline: float) -> bytes:
    """The body as it was sent, within the limit and the caller's time.

    Raises:
        TimeoutError: it trickles in.
        web.HTTPException: not JSON by its own account, packed, or too large.
        review.BadReview: broken on the way.
    """
    if request.headers.get("Content-Type") != JSON and request.content_type != JSON:
        raise web.HTTPUnsupportedMediaType(text=f"Content-Type must be {JSON}\n")
    if "Content-Encoding" in request.headers:
        raise web.HTTPUnsupportedMediaType(text="Content-Encoding is not supported\n")
    try:
        if request.content.is_eof():
            return await request.read()  # all of it is here, nothing is waited for
        async with asyncio.timeout_at(deadline):
            return await request.read()
    except web.RequestPayloadError as e:
        raise review.BadReview(f"broken body: {e}") from e


def _again(reason: str, after_s: int) -> web.Response:
    """An answer that the API server tries again on.

    Another connection may reach another replica, so this one is given up, by both sides.
    """
    headers = {"Retry-After": str(after_s), "Connection": "close"}
    response = web.Response(status=503, text=f"{reason}\n", headers=headers)
    response.force_close()
    return response


def _budget_s(request: web.Request) -> float:
    """What is left of the caller's time: ``?timeout=10s``, whole seconds by its own rule."""
    return _timeout_s(request.raw_path.partition("?timeout=")[2][:_TIMEOUT_CHARS])


@lru_cache(maxsize=64)
def _timeout_s(text: str) -> float:
    if text.endswith("s") and text[:-1].isascii() and text[:-1].isdigit() and len(text) <= 4:
        return max(MARGIN_S, int(text[:-1]) - MARGIN_S)
    return DEFAULT_TIMEOUT_S - MARGIN_S
