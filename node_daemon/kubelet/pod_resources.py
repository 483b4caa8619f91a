"""The containers that hold tokens, as the kubelet lists them through PodResources v1."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc

from gpu_fraction.domain import keys
from gpu_fraction.kubelet_api import podresources_v1_pb2, podresources_v1_pb2_grpc
from gpu_fraction.node_daemon.state.allocation import Token
from gpu_fraction.node_daemon.state.errors import KubeletError

MAX_ANSWER_BYTES: Final = 64 << 20
"""The kubelet sends without a limit; gRPC's own limit of 4 MiB is below what a node with many
devices answers. Chosen: an order above the largest answer that was seen."""

RETRY_S: Final = (0.05, 0.25)
"""Pause after the kubelet's "rejected by rate limit". Its bucket is 100 calls a second, ten in
reserve. Source: kubernetes pkg/kubelet/apis/podresources/constants.go."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A container that holds slots.

    Attributes:
        pod: Its pod's name. PodResources has no UID.
    """

    namespace: str
    pod: str
    container: str
    tokens: frozenset[Token]


@dataclass(frozen=True, slots=True)
class Listing:
    """One answer of the kubelet.

    Attributes:
        holders: Every container with a token, one entry for each pod of a name.
        pods: Number of pods with each namespace and name.
    """

    holders: tuple[Holder, ...] = ()
    pods: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def of(self, token: Token) -> tuple[Holder, ...]:
        """Every container that holds a token."""
        return tuple(holder for holder in self.holders if token in holder.tokens)


class PodResourcesClient:
    """Asks the kubelet; calls that wait at the same time share one answer."""

    def __init__(self, socket: Path, *, timeout_s: float = 5.0) -> None:
        """Talk to ``socket``; give each question ``timeout_s`` seconds."""
        self._socket = socket
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._started = 0
        self._answered = 0
        self._answer: Listing | KubeletError = KubeletError("not asked yet")

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(
            f"unix:{self._socket}",
            options=[
                ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                # The kubelet's listener answers any authority; Go's own default is this one.
                ("grpc.default_authority", "localhost"),
            ],
        )
        self._stub = podresources_v1_pb2_grpc.PodResourcesListerStub(self._channel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channel.close(grace=None)

    async def fresh(self) -> Listing:
        """An answer to a question that was asked after this call began.

        A burst of callers costs two questions, not one each, which keeps well below the
        kubelet's rate limit.

        Raises:
            KubeletError: no answer in time, or an error.
        """
        wanted = self._started + 1
        async with self._lock:
            if self._answered < wanted:
                self._started += 1
                asked = self._started
                try:
                    self._answer = await self._list()
                except KubeletError as e:
                    self._answer = e
                self._answered = asked
            answer = self._answer
        if isinstance(answer, KubeletError):
            raise KubeletError(str(answer)) from answer
        return answer

    async def _list(self) -> Listing:
        request = podresources_v1_pb2.ListPodResourcesRequest()
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return _listing(await self._stub.List(request, wait_for_ready=True))
                    except grpc.aio.AioRpcError as e:
                        if e.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or (
                            "rate limit" not in (e.details() or "")
                        ):
                            raise KubeletError(f"PodResources List: {e.details()}") from e
                    await asyncio.sleep(random.uniform(*RETRY_S))  # noqa: S311 - spreads retries
        except TimeoutError as e:
            raise KubeletError(
                f"the kubelet did not answer PodResources List on {self._socket} "
                f"within {self._timeout_s:g} s"
            ) from e


def _listing(answer: podresources_v1_pb2.ListPodResourcesResponse) -> Listing:
    holders = []
    pods: dict[tuple[str, str], int] = {}
    for pod in answer.pod_resources:
        name = (pod.namespace, pod.name)
        pods[name] = pods.get(name, 0) + 1
        for container in pod.containers:
            tokens = frozenset(
                Token(device_id)
                for entry in container.devices
                if entry.resource_name == keys.SLOT
                for device_id in entry.device_ids
            )
            if tokens:
                holders.append(Holder(pod.namespace, pod.name, container.name, tokens))
    return Listing(tuple(holders), pods)
