"""The extender over HTTP, as kube-scheduler calls it.

A malformed call gets HTTP 400 and an unknown caller 401. Before the state is loaded, filter and
bind answer 200 with an error in the body, because the pod's events show that text and no status
code. The answer of preempt has no field for an error, so it is HTTP 503, after which the scheduler
evicts no pods.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from gpu_fraction.scheduler import preemption
from gpu_fraction.scheduler.auth import Callers
from gpu_fraction.scheduler.binding import Binder
from gpu_fraction.scheduler.extender import Extender
from gpu_fraction.scheduler.metrics import ExtenderMetrics
from gpu_fraction.scheduler.preemption import Proposal
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.scheduler.wire import (
    BindingArgs,
    BindingResult,
    FilterArgs,
    FilterResult,
    MetaPod,
    PreemptionArgs,
    PreemptionResult,
    Victims,
)
from gpu_fraction.serving.probes import add_probes

_log = structlog.get_logger(__name__)

BODY_LIMIT_BYTES: Final = 32 << 20
"""Chosen: the names of 5,000 nodes are 0.3 MiB; a preempt call without node cache carries
whole victims, which fit too."""

NOT_CACHED: Final = "nodeCacheCapable must be true for this extender"
LOADING: Final = "gpu-fraction extender: still loading nodes and pods, will be retried"

BIND_WAIT_S: Final = 0.02
"""Longest wait for a pending bind. Chosen: the bind follows within some milliseconds; a pod that
fails between score and bind costs the next one this much, once."""

_FILTER: Final = msgspec.json.Decoder(FilterArgs)
_BINDING: Final = msgspec.json.Decoder(BindingArgs)
_PREEMPTION: Final = msgspec.json.Decoder(PreemptionArgs)
_encode: Final = msgspec.json.Encoder().encode


class PendingBind:
    """The bind of the pod that was scored last, until it arrives.

    kube-scheduler starts on the next pod while it binds the one before in the background. Without
    that bind, the next pod would open a card that the last pod opened too, or end in a conflict
    and a second of back-off. So filter waits a moment for the bind.
    """

    def __init__(self, wait_s: float = BIND_WAIT_S) -> None:
        """No pending bind.

        Args:
            wait_s: Longest wait.
        """
        self._wait_s = wait_s
        self._uid = ""
        self._arrived = asyncio.Event()
        self._arrived.set()

    def expect(self, uid: str) -> None:
        """The pod was scored; its bind is pending."""
        self._uid = uid
        self._arrived = asyncio.Event()

    def arrived(self, uid: str) -> None:
        """The pod's bind arrived; it claims its cards before a waiting call continues."""
        if uid == self._uid:
            self._arrived.set()

    async def wait(self, uid: str) -> None:
        """Wait for the pending bind of another pod.

        Args:
            uid: The pod to be judged; its own bind cannot be pending any more.
        """
        if uid == self._uid or self._arrived.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                await self._arrived.wait()
        self._arrived.set()


class ExtenderApp:
    """The four verbs, health and metrics."""

    def __init__(
        self,
        state: ClusterState,
        extender: Extender,
        binder: Binder,
        callers: Callers,
        metrics: ExtenderMetrics,
        *,
        registry: CollectorRegistry,
        check: Callable[[], str | None],
    ) -> None:
        """Prepare; :meth:`build` makes the application.

        Args:
            state: The cluster.
            extender: Filters and scores.
            binder: Binds.
            callers: The callers that may use the verbs.
            metrics: Times and counts the verbs.
            registry: The metrics of /metrics.
            check: Why the state is not ready; None where it is.
        """
        self._state = state
        self._extender = extender
        self._binder = binder
        self._callers = callers
        self._metrics = metrics
        self._registry = registry
        self._check = check
        self._pending = PendingBind()

    def build(self) -> web.Application:
        """The application; serve it over TLS."""
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        for verb, answer in (
            ("filter", self._filter),
            ("prioritize", self._prioritize),
            ("bind", self._bind),
            ("preempt", self._preempt),
        ):
            app.router.add_post(f"/{verb}", self._guarded(verb, answer))
        add_probes(app, self._registry, ready=self._check)
        return app

    def _guarded(
        self,
        verb: str,
        answer: Callable[[bytes], Awaitable[msgspec.Struct | list[msgspec.Struct]]],
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        seconds, errors = self._metrics.seconds.labels(verb), self._metrics.errors.labels(verb)

        async def handle(request: web.Request) -> web.Response:
            loop = asyncio.get_running_loop()
            started_at = loop.time()
            if not self._callers.admit(request):
                errors.inc()
                _log.warning("scheduler.caller_unknown", verb=verb, peer=request.remote)
                raise web.HTTPUnauthorized(text="a client certificate or a token is needed")
            try:
                body = _encode(await answer(await request.read()))
            except msgspec.MsgspecError as e:
                errors.inc()
                raise web.HTTPBadRequest(text=f"{verb}: {e}") from e
            finally:
                seconds.observe(loop.time() - started_at)
            return web.Response(body=body, content_type="application/json")

        return handle

    async def _filter(self, body: bytes) -> FilterResult:
        args = _FILTER.decode(body)
        why = self._check()
        if why is not None or args.node_names is None:
            self._metrics.errors.labels("filter").inc()
            return FilterResult(None, error=f"{LOADING} ({why})" if why else NOT_CACHED)
        uid = args.pod.metadata.uid
        await self._pending.wait(uid)
        result = self._extender.filter(self._state.info(args.pod), args.node_names)
        if len(result.node_names or ()) == 1:
            # A single node is not scored; the bind follows at once.
            self._pending.expect(uid)
        return result

    async def _prioritize(self, body: bytes) -> list[msgspec.Struct]:
        args = _FILTER.decode(body)
        info = self._state.info(args.pod)
        self._pending.expect(info.uid)
        return list(self._extender.prioritize(info, args.node_names or ()))

    async def _bind(self, body: bytes) -> BindingResult:
        args = _BINDING.decode(body)
        why = self._check()
        if why is not None:
            self._metrics.errors.labels("bind").inc()
            return BindingResult(f"{LOADING} ({why})")
        self._pending.arrived(args.pod_uid)
        error = await self._binder.bind(args)
        if error:
            _log.info(
                "scheduler.bind_failed",
                namespace=args.pod_namespace,
                pod=args.pod_name,
                node=args.node,
                error=error,
            )
        return BindingResult(error)

    async def _preempt(self, body: bytes) -> PreemptionResult:
        args = _PREEMPTION.decode(body)
        why = self._check()
        if why is not None:
            self._metrics.errors.labels("preempt").inc()
            raise web.HTTPServiceUnavailable(text=f"{LOADING} ({why})")
        info = self._state.info(args.pod)
        barred = self._extender.barred(info)
        found = await preemption.victims_by_node(self._state, info, _proposals(args), barred)
        return PreemptionResult(
            {
                node: Victims([MetaPod(uid) for uid in victims.uids], victims.violations)
                for node, victims in found.items()
            }
        )


def _proposals(args: PreemptionArgs) -> dict[str, Proposal]:
    """The scheduler's victims by node, from either of the two fields."""
    if args.node_name_to_meta_victims is not None:
        return {
            node: Proposal(tuple(pod.uid for pod in v.pods or ()), v.num_pdb_violations)
            for node, v in args.node_name_to_meta_victims.items()
        }
    return {
        node: Proposal(tuple(pod.metadata.uid for pod in v.pods or ()), v.num_pdb_violations)
        for node, v in (args.node_name_to_victims or {}).items()
    }
