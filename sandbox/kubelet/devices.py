"""The kubelet's device manager: endpoints, admission, allocations and its checkpoint."""

import asyncio
import base64
import json
import random
from collections.abc import Awaitable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc
import structlog

from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2 as api
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2_grpc as api_grpc

CHECKPOINT = "kubelet_internal_checkpoint"

_log = structlog.get_logger()
_T = TypeVar("_T")


class AdmissionError(Exception):
    """The pod is ``Failed`` with reason UnexpectedAdmissionError."""


class ConnectedError(Exception):
    """The plugin is not registered."""


class StartError(Exception):
    """The container does not start now; the kubelet tries again."""


class _CallError(Exception):
    """A call to the plugin failed."""


async def _answer(call: Awaitable[_T]) -> _T:
    """The answer to a call, whose end with its channel is no cancellation of ours.

    Raises:
        _CallError: there was none.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as e:
        raise _CallError(e.details()) from e
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _CallError("connection closed") from None


@dataclass(frozen=True, slots=True)
class Allocated:
    """One container's devices and the stored answer to ``Allocate``."""

    uid: str
    container: str
    ids: tuple[str, ...]
    answer: bytes

    @property
    def cdi_names(self) -> tuple[str, ...]:
        """The CDI names that the runtime is given."""
        answer = api.ContainerAllocateResponse.FromString(self.answer)
        return tuple(device.name for device in answer.cdi_devices)


@dataclass(slots=True)
class Endpoint:
    """A plugin as the kubelet knows it."""

    channel: grpc.aio.Channel | None = None
    pre_start_required: bool = False
    healthy: set[str] = field(default_factory=set)
    unhealthy: set[str] = field(default_factory=set)
    stream: asyncio.Task[None] | None = None

    @property
    def stopped(self) -> bool:
        """True where no plugin stands behind it."""
        return self.channel is None


class DeviceManager:
    """One resource of one node."""

    def __init__(self, directory: Path, resource: str, rng: random.Random) -> None:
        """Keep sockets and checkpoint in ``directory``."""
        self._directory = directory
        self._resource = resource
        self._rng = rng
        self._allocated: dict[tuple[str, str], Allocated] = {}
        self.endpoint = Endpoint()
        self.registrations = 0
        self.messages = 0
        self.overlaps = 0
        """Registrations that came while an earlier stream was open."""
        self.removes_next = False
        """Whether the next plugin's socket was made just before this kubelet removed all."""
        self.writes_checkpoint = True
        self.attentive = asyncio.Event()
        """Cleared while a busy kubelet does not notice that a stream has ended."""
        self.attentive.set()
        self._connected: dict[str, bool] = {}
        """Sockets of plugins whose end was not noticed, and whether it will be."""

    @property
    def allocated(self) -> tuple[Allocated, ...]:
        """Every container with devices."""
        return tuple(self._allocated.values())

    def start(self) -> None:
        """As at a kubelet start: known resources get an endpoint that is stopped."""
        self.endpoint = Endpoint()
        self._connected.clear()
        self._allocated = self._load()

    async def stop(self) -> None:
        """Drop the connection to the plugin, as when the kubelet ends."""
        endpoint, self.endpoint = self.endpoint, Endpoint()
        if endpoint.stream is not None:
            endpoint.stream.cancel()
            await asyncio.gather(endpoint.stream, return_exceptions=True)
        if endpoint.channel is not None:
            await endpoint.channel.close(grace=None)

    async def register(self, request: api.RegisterRequest) -> None:
        """Dial the plugin back and follow its list, before the registration is answered.

        Raises:
            ConnectedError: a plugin with that socket is connected. As of Kubernetes 1.37 it is
                then forgotten, its end is never noticed and the socket's name never free again.
        """
        old = self.endpoint
        if old.stream is not None and not old.stream.done():
            self.overlaps += 1
        channel = grpc.aio.insecure_channel(
            f"unix:{self._directory / request.endpoint}",
            options=[("grpc.use_local_subchannel_pool", 1)],
        )
        stub = api_grpc.DevicePluginStub(channel)
        if self.removes_next:
            self.removes_next = False
            (self._directory / request.endpoint).unlink()
        # Source: kubernetes plugin/v1beta1/client.go, dial: it waits for the socket, 10 s.
        options = await stub.GetDevicePluginOptions(api.Empty(), timeout=10, wait_for_ready=True)
        if request.endpoint in self._connected:
            self._connected[request.endpoint] = False
            await channel.close(grace=None)
            raise ConnectedError(f"device plugin already connected: {request.endpoint}")
        self._connected[request.endpoint] = True
        self.endpoint = Endpoint(channel, options.pre_start_required)
        self.endpoint.stream = asyncio.create_task(
            self._follow(channel, request.endpoint), name="list-and-watch"
        )
        self.registrations += 1

    async def _follow(self, channel: grpc.aio.Channel, socket: str) -> None:
        """Whichever endpoint is current is stopped when this stream ends, as up to 1.36."""
        try:
            stub = api_grpc.DevicePluginStub(channel)
            async for response in stub.ListAndWatch(api.Empty()):
                states = {device.ID: device.health == "Healthy" for device in response.devices}
                self.endpoint.healthy = {name for name, well in states.items() if well}
                self.endpoint.unhealthy = set(states) - self.endpoint.healthy
                self.messages += 1
        except grpc.aio.AioRpcError as e:
            _log.debug("stream_ended", code=e.code().name)
        await self.attentive.wait()
        if self._connected.pop(socket):
            current, self.endpoint.channel = self.endpoint.channel, None
            self.endpoint.healthy, self.endpoint.unhealthy = set(), self.endpoint.healthy
            if current is not None:
                await current.close(grace=None)
            await channel.close(grace=None)
        else:
            self._connected[socket] = False

    async def allocate(
        self, uid: str, containers: Collection[str], ids: Collection[str] = ()
    ) -> None:
        """Admit a pod: one id for each container, chosen at random unless given.

        Raises:
            AdmissionError: no plugin, no free id, or the plugin refused.
        """
        wanted = list(ids)
        for container in containers:
            if (uid, container) in self._allocated:
                continue
            taken = {i for a in self._allocated.values() for i in a.ids}
            free = sorted(self.endpoint.healthy - taken)
            if not wanted and (self.endpoint.channel is None or not free):
                raise AdmissionError(f"no healthy {self._resource}")
            chosen = wanted.pop(0) if wanted else self._rng.choice(free)
            await self._allocate(uid, container, chosen)

    async def _allocate(self, uid: str, container: str, device: str) -> None:
        if self.endpoint.channel is None:
            raise AdmissionError("endpoint stopped")
        stub = api_grpc.DevicePluginStub(self.endpoint.channel)
        request = api.AllocateRequest(
            container_requests=[api.ContainerAllocateRequest(devices_ids=[device])]
        )
        key = (uid, container)
        # The id is taken before the call, in the same step as it was found free.
        self._allocated[key] = Allocated(uid, container, (device,), b"")
        try:
            response = await _answer(stub.Allocate(request))
        except _CallError as e:
            self._allocated.pop(key, None)
            raise AdmissionError(str(e)) from e
        answer = response.container_responses[0].SerializeToString()
        self._allocated[key] = Allocated(uid, container, (device,), answer)
        self._save()

    async def pre_start(self, uid: str, container: str) -> Allocated:
        """What comes before the runtime makes the container.

        Raises:
            StartError: the plugin refused or is gone.
        """
        allocated = self._allocated.get((uid, container))
        if allocated is None:
            raise StartError("no devices found allocated in local cache")
        endpoint = self.endpoint
        if not endpoint.pre_start_required:
            return allocated
        if endpoint.channel is None:
            raise StartError("endpoint has been stopped")
        stub = api_grpc.DevicePluginStub(endpoint.channel)
        request = api.PreStartContainerRequest(devices_ids=allocated.ids)
        try:
            await _answer(stub.PreStartContainer(request, timeout=30))
        except _CallError as e:
            raise StartError(str(e)) from e
        return allocated

    def forget(self, uid: str) -> None:
        """The pod is gone: its ids are free."""
        self._allocated = {k: a for k, a in self._allocated.items() if k[0] != uid}
        self._save()

    def lose_checkpoint(self) -> None:
        """As when an administrator deletes the file while the kubelet is down."""
        (self._directory / CHECKPOINT).unlink(missing_ok=True)

    def _save(self) -> None:
        """Written whole at each change, in the kubelet's own format."""
        if not self.writes_checkpoint:
            return
        entries = [
            {
                "PodUID": a.uid,
                "ContainerName": a.container,
                "ResourceName": self._resource,
                "DeviceIDs": {"-1": list(a.ids)},
                "AllocResp": base64.b64encode(a.answer).decode(),
            }
            for a in self._allocated.values()
            if a.answer
        ]
        registered = {self._resource: sorted(self.endpoint.healthy)}
        data = {"PodDeviceEntries": entries, "RegisteredDevices": registered}
        temporary = self._directory / f".{CHECKPOINT}"
        temporary.write_text(json.dumps({"Data": data, "Checksum": 0}))
        temporary.replace(self._directory / CHECKPOINT)

    def _load(self) -> dict[tuple[str, str], Allocated]:
        path = self._directory / CHECKPOINT
        if not self.writes_checkpoint:
            return self._allocated
        if not path.exists():
            return {}
        found = {}
        for entry in json.loads(path.read_text())["Data"]["PodDeviceEntries"]:
            ids = tuple(i for node in entry["DeviceIDs"].values() for i in node)
            key = (entry["PodUID"], entry["ContainerName"])
            found[key] = Allocated(*key, ids, base64.b64decode(entry["AllocResp"]))
        return found
