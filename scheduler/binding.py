"""Bind a pod with its cards: one API call where nothing goes wrong.

The cards travel in the Binding's annotations, which the API server writes in the same step as
the node's name, under the precondition that the pod is the one that was judged.
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
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.scheduler.views import PodView
from gpu_fraction.scheduler.wire import BindingArgs

_log = structlog.get_logger(__name__)

CALL_S: Final = 5.0
"""Seconds for one call to the API server. A bind makes three at most: chosen so that they end
before the httpTimeout of the scheduler's configuration, and our own reason is what the pod's
event shows."""

DOUBT_S: Final = 45.0
"""Seconds after which a Binding that was sent cannot take effect any more: ours, and the 34 s
that the API server gives a request (apiserver/pkg/endpoints/handlers/rest.go,
requestTimeoutUpperBound)."""

RECHECK_S: Final = 5.0
"""Seconds between looks for claims to check; chosen."""


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
    """The calls, on a real API server."""

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
    """Carries out binds and settles what they leave open."""

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
            metrics: Counts what happens.
            clock: Seconds that only grow.
        """
        self._state = state
        self._extender = extender
        self._api = api
        self._metrics = metrics
        self._clock = clock
        self._busy: set[str] = set()

    async def bind(self, args: BindingArgs) -> str:
        """Bind the pod; empty, or one line that says why it was not bound.

        Cards are claimed before the first await and given up when the Binding was refused.
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
            view = await self._view(args)
            if self._is_there(view, args):
                self._count(Outcome.BOUND)
                return ""
            cards = self._extender.cards_for(view, args.node)
        except BindRefusedError as e:
            self._count(Outcome.CONFLICT)
            return str(e)
        except errors.KubeError as e:
            self._count(Outcome.FAILED)
            return f"reading the pod: {e}"
        if cards:
            self._state.send(view, args.node, cards, self._clock())
        outcome, why = Outcome.UNKNOWN, "interrupted"
        try:
            outcome, why = await self._post(args, cards)
        finally:
            self._record(args, outcome)
        return why

    def _is_there(self, view: PodView, args: BindingArgs) -> bool:
        """True where the pod is known to be bound to the node: the caller missed our answer.

        A Binding sent again could be refused for reasons that say nothing of the first, such
        as a namespace that is being deleted, and must not shake the claim.

        Raises:
            BindRefusedError: the pod is bound to another node.
        """
        node = view.node or self._state.claims.bound_to(view.uid)
        if node not in ("", args.node):
            raise BindRefusedError(f"pod {args.pod_name} is bound to {node} already")
        return node == args.node

    async def _view(self, args: BindingArgs) -> PodView:
        """The pod, read from the API server where the watch does not show it yet.

        Raises:
            BindRefusedError: the pod is gone.
            KubeError: it could not be read.
        """
        view = self._state.pod(args.pod_uid)
        if view is not None:
            return view
        found = await self._api.find(args.pod_namespace, args.pod_name)
        if found is None or found.metadata.uid != args.pod_uid:
            raise BindRefusedError(f"pod {args.pod_name} is gone")
        return self._state.view(found)

    async def _post(self, args: BindingArgs, cards: Assignment) -> tuple[Outcome, str]:
        """Post the Binding; what came of it, and why it failed."""
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
        """The pod is bound already, or is not the one that was judged: see which."""
        try:
            found = await self._api.find(args.pod_namespace, args.pod_name)
        except errors.KubeError:
            return Outcome.UNKNOWN, why
        gone = found is None or found.metadata.uid != args.pod_uid
        node = "" if gone or found is None else found.spec.node_name or ""
        claim = self._state.claims.get(args.pod_uid, args.node)
        if claim is not None and (gone or node):
            # A pod is bound once, so this settles even a Binding of unknown fate.
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

    async def settle(self) -> None:
        """Ask the API server about every claim that has waited too long for the watch."""
        for claim in self._state.claims.due(self._clock(), DOUBT_S):
            try:
                found = await self._api.find(claim.namespace, claim.name)
            except errors.KubeError as e:
                _log.warning("scheduler.claim_unsettled", pod=claim.name, error=str(e))
                continue
            self._state.verified(claim, found, self._clock())

    async def settle_forever(self) -> None:
        """Settle claims until cancelled."""
        while True:
            await asyncio.sleep(RECHECK_S)
            await self.settle()
