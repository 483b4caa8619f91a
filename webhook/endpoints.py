"""The HTTP endpoints of the admission server.

An HTTP error means a bad call or a bug, and failurePolicy decides on the request;
``allowed: false`` refuses the content of the user's object.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram

from gpu_fraction.serving.probes import add_probes
from gpu_fraction.webhook import review

MAX_BODY_BYTES: Final = 8 << 20
"""The API server takes 3 MiB and sends object and oldObject (apiserver/pkg/server/config.go)."""

DEFAULT_TIMEOUT_S: Final = 10.0
"""The timeout of a call without one (admissionregistration/v1 timeoutSeconds)."""

MARGIN_S: Final = 0.5
"""Margin under the caller's timeout, for the answer to arrive in time: chosen."""

_TIMEOUT_CHARS: Final = 8
"""Characters of ``?timeout=`` that are read; callers control the text."""

_NAME_CHARS: Final = 253
"""Characters of an object's name in the log (RFC 1123 subdomain); it is not validated yet."""

OPERATIONS: Final = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})

JSON: Final = "application/json"

Decide = Callable[[review.AdmissionRequest], review.Answer | Awaitable[review.Answer]]
"""The answer to a request; an awaitable has to finish within the caller's timeout."""

Check = Callable[[], str | None]
"""A readiness check: None, or why this replica is not ready."""


class NotReady(Exception):  # noqa: N818 - a state, not a fault
    """This replica cannot answer now; a retry or another replica can.

    The API server repeats a call that gets 503 with an integer Retry-After, with the same body
    and uid and within its timeout (client-go rest/with_retry.go).
    """

    def __init__(self, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class AdmissionMetrics:
    """Metrics of one admission server; tenants control no label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with ``registry``."""
        self.reviews = Counter(
            "gpu_fraction_admission_reviews",
            "Admission reviews by path, operation and decision",
            ["path", "operation", "decision"],
            registry=registry,
        )
        self.seconds = Histogram(
            "gpu_fraction_admission_seconds",
            "Time from the first byte of a review to its answer",
            ["path"],
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 2.5, 10),
            registry=registry,
        )


@dataclass(slots=True)
class AdmissionApp:
    """Routes of the admission server.

    Attributes:
        mutate: Answers ``/mutate``.
        validate: Answers ``/validate``.
        registry: The registry of the metrics.
        checks: The checks of ``/readyz``.
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
    def __init__(self, path: str, decide: Decide, metrics: AdmissionMetrics) -> None:
        self._path = path
        self._decide = decide
        self._metrics = metrics
        self._seconds = metrics.seconds.labels(path)
        # Bound once: a lazy logger binds again for each line.
        self._log = structlog.get_logger().bind(path=path)
        # Cached: the lookup of a labelled counter costs more than the increment.
        self._counts: dict[tuple[str, str], Counter] = {}

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one review."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + _remaining_s(
            request.raw_path.partition("?timeout=")[2][:_TIMEOUT_CHARS]
        )
        try:
            body = await _body(request, deadline)
            return await self._answer(body, loop, started, deadline)
        except TimeoutError:
            self._count("", "timeout")
            return _retry_later("the caller's timeout expired before the answer", 0)
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
            return _retry_later(str(e), e.retry_after_s)
        except (TimeoutError, review.BadReview):
            raise
        except Exception:  # noqa: BLE001 - logged below
            # A bug: the API server gets a 500 and failurePolicy decides.
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
    """Read the body, within the size limit and the caller's timeout.

    Raises:
        TimeoutError: the body arrives too slowly.
        web.HTTPException: the body is not declared as JSON, is compressed, or is too large.
        review.BadReview: the transfer failed.
    """
    if request.headers.get("Content-Type") != JSON and request.content_type != JSON:
        raise web.HTTPUnsupportedMediaType(text=f"Content-Type must be {JSON}\n")
    if "Content-Encoding" in request.headers:
        raise web.HTTPUnsupportedMediaType(
            text="Content-Encoding is not supported; send the body uncompressed\n"
        )
    try:
        if request.content.is_eof():
            return await request.read()  # complete already; no timeout needed
        async with asyncio.timeout_at(deadline):
            return await request.read()
    except web.RequestPayloadError as e:
        raise review.BadReview(f"incomplete body: {e}") from e


def _retry_later(reason: str, after_s: int) -> web.Response:
    """A 503 that makes the API server retry.

    Both sides close the connection, because a new one may reach another replica.
    """
    headers = {"Retry-After": str(after_s), "Connection": "close"}
    response = web.Response(status=503, text=f"{reason}\n", headers=headers)
    response.force_close()
    return response


@lru_cache(maxsize=64)
def _remaining_s(text: str) -> float:
    """The caller's timeout less the margin: ``10s``, always whole seconds."""
    if text.endswith("s") and text[:-1].isascii() and text[:-1].isdigit() and len(text) <= 4:
        return max(MARGIN_S, int(text[:-1]) - MARGIN_S)
    return DEFAULT_TIMEOUT_S - MARGIN_S
