"""Bind a pod with its cards: one API call where nothing goes wrong.

The cards are in the Binding's annotations, which the API server writes together with the node's
name, and only if the pod's uid is the one in the Binding.
Source: kubernetes pkg/registry/core/pod/storage, assignPod and setPodHostAndAnnotations.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from gpu_fraction.domain import assignment, keys
from gpu_fraction.domain.assignment import Assignment
from gpu_fraction.kube import errors, requests
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.resources import PODS
from gpu_fraction.scheduler.extender import BindRefusedError, Extender
from gpu_fraction.scheduler.metrics import ExtenderMetrics, Outcome
from gpu_fraction.scheduler.objects import Pod
from gpu_fraction.scheduler.pod_info import PodInfo
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.scheduler.wire import BindingArgs

_log = structlog.get_logger(__name__)

CALL_S: Final = 5.0
"""Seconds for one call to the API server. Chosen: a bind makes three at most, which end before the
httpTimeout in the scheduler's configuration, so the pod's event shows our own reason."""

DOUBT_S: Final = 45.0
"""Seconds after which a Binding that was sent cannot take effect any more: our own deadline, and
the 34 s that the API server gives a request (apiserver/pkg/endpoints/handlers/rest.go,
requestTimeoutUpperBound)."""

RECHECK_S: Final = 5.0
"""Seconds between two checks for claims that need a read; chosen."""


class PodApi(Protocol):
    """The two calls that binding needs."""

    async def bind(self, args: BindingArgs, cards: Assignment) -> None:
        """Post the Binding. Raises KubeError."""
        ...

    async def find(self, namespace: str, name: str) -> Pod | None:
        """The pod as of every finished write; None where there is none. Raises KubeError."""
        ...


def binding(args: BindingArgs, cards: Assignment) -> dict[str, Any]:
    """The Binding of a pod to a node and its cards."""
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "namespace": args.pod_namespace,
            "name": args.pod_name,
            "uid": args.pod_uid,
            "annotations": {keys.ASSIGNED: assignment.render(cards)} if cards else {},
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": args.node},
    }


class KubePodApi:
    """The two calls to a real API server."""

    def __init__(self, client: Client, timeout_s: float = CALL_S) -> None:
        """Call through this client.

        Args:
            client: The API server.
            timeout_s: Deadline of one call.
        """
        self._client = client
        self._timeout_s = timeout_s

    async def bind(self, args: BindingArgs, cards: Assignment) -> None:
        """Post the Binding."""
        address = PODS.at(args.pod_name, namespace=args.pod_namespace, subresource="binding")
        request = requests.create(address, binding(args, cards))
        await self._client.send(request, timeout_s=self._timeout_s)

    async def find(self, namespace: str, name: str) -> Pod | None:
        """Read the pod from the server's storage."""
        try:
            address = PODS.at(name, namespace=namespace)
            return await self._client.get(address, Pod, timeout_s=self._timeout_s)
        except errors.NotFoundError:
            return None


class Binder:
    """Binds pods, and rechecks the claims of binds without a clear end."""

    def __init__(
        self,
        state: ClusterState,
        extender: Extender,
        api: PodApi,
        metrics: ExtenderMetrics,
        clock: Callable[[], float],
    ) -> None:
        """Bind against this state.

        Args:
            state: The cluster.
            extender: Chooses the cards.
            api: The API server.
            metrics: Counts the outcomes.
            clock: A monotonic clock, in seconds.
        """
        self._state = state
        self._extender = extender
        self._api = api
        self._metrics = metrics
        self._clock = clock
        self._busy: set[str] = set()

    async def bind(self, args: BindingArgs) -> str:
        """Bind the pod; empty, or one line with the reason why it was not bound.

        Cards are claimed before the Binding is sent and free again once it is refused.
        """
        if args.pod_uid in self._busy:
            return f"pod {args.pod_name} is being bound by an earlier call"
        self._busy.add(args.pod_uid)
        try:
            return await self._bind(args)
        finally:
            self._busy.discard(args.pod_uid)

    async def _bind(self, args: BindingArgs) -> str:
        try:
            info = await self._view(args)
            if self._is_there(info, args):
                self._count(Outcome.BOUND)
                return ""
            cards = self._extender.cards_for(info, args.node)
        except BindRefusedError as e:
            self._count(Outcome.CONFLICT)
            return str(e)
        except errors.KubeError as e:
            self._count(Outcome.FAILED)
            return f"reading the pod: {e}"
        if cards:
            self._state.send(info, args.node, cards, self._clock())
        outcome, why = Outcome.UNKNOWN, "interrupted"
        try:
            outcome, why = await self._post(args, cards)
        finally:
            self._record(args, outcome)
        return why

    def _is_there(self, info: PodInfo, args: BindingArgs) -> bool:
        """True where the pod is bound to the node already, because the caller missed our answer.

        A second Binding could be refused for a reason that does not concern the first, such as a
        namespace that is being deleted, and the claim would end.

        Raises:
            BindRefusedError: the pod is bound to another node.
        """
        node = info.node or self._state.claims.bound_to(info.uid)
        if node not in ("", args.node):
            raise BindRefusedError(f"pod {args.pod_name} is bound to {node} already")
        return node == args.node

    async def _view(self, args: BindingArgs) -> PodInfo:
        """The pod, read from the API server where the watch does not show it yet.

        Raises:
            BindRefusedError: the pod is gone.
            KubeError: it could not be read.
        """
        info = self._state.pod(args.pod_uid)
        if info is not None:
            return info
        found = await self._api.find(args.pod_namespace, args.pod_name)
        if found is None or found.metadata.uid != args.pod_uid:
            raise BindRefusedError(f"pod {args.pod_name} is gone")
        return self._state.info(found)

    async def _post(self, args: BindingArgs, cards: Assignment) -> tuple[Outcome, str]:
        """Post the Binding; its outcome, and the reason of a failure."""
        try:
            await self._api.bind(args, cards)
        except errors.TransientError as e:
            outcome = Outcome.UNKNOWN if e.started else Outcome.FAILED
            return outcome, f"binding to {args.node}: {e}"
        except errors.ConflictError as e:
            return await self._conflict(args, f"binding to {args.node}: {e}")
        except errors.KubeError as e:
            return Outcome.FAILED, f"binding to {args.node}: {e}"
        return Outcome.BOUND, ""

    async def _conflict(self, args: BindingArgs, why: str) -> tuple[Outcome, str]:
        """Find out whether the pod is bound already or was replaced by another."""
        try:
            found = await self._api.find(args.pod_namespace, args.pod_name)
        except errors.KubeError:
            return Outcome.UNKNOWN, why
        gone = found is None or found.metadata.uid != args.pod_uid
        node = "" if gone or found is None else found.spec.node_name or ""
        claim = self._state.claims.get(args.pod_uid, args.node)
        if claim is not None and (gone or node):
            # A pod is bound only once, so this also decides a Binding whose answer was lost.
            self._state.verified(claim, found, self._clock())
        return (Outcome.BOUND, "") if node == args.node else (Outcome.CONFLICT, why)

    def _record(self, args: BindingArgs, outcome: Outcome) -> None:
        uid, node, now_s = args.pod_uid, args.node, self._clock()
        match outcome:
            case Outcome.BOUND:
                self._state.accepted(uid, node, now_s)
            case Outcome.UNKNOWN:
                self._state.lost(uid, node, now_s)
            case _:
                self._state.refused(uid, node)
        self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        self._metrics.bindings.labels(outcome.value).inc()

    async def recheck(self) -> None:
        """Read the pod of every claim that the watch has not shown for ``DOUBT_S``."""
        for claim in self._state.claims.due(self._clock(), DOUBT_S):
            try:
                found = await self._api.find(claim.namespace, claim.name)
            except errors.KubeError as e:
                _log.warning("scheduler.claim_recheck_failed", pod=claim.name, error=str(e))
                continue
            self._state.verified(claim, found, self._clock())

    async def recheck_forever(self) -> None:
        """Recheck claims until cancelled."""
        while True:
            await asyncio.sleep(RECHECK_S)
            await self.recheck()
