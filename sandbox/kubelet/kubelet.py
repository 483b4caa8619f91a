"""The fake kubelet: its sockets, its pods and its containers."""

import random
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2 as plugin_api
from gpu_fraction.kubelet_api import deviceplugin_v1beta1_pb2_grpc as plugin_grpc
from gpu_fraction.kubelet_api import podresources_v1_pb2 as api
from gpu_fraction.kubelet_api import podresources_v1_pb2_grpc as api_grpc
from gpu_fraction.sandbox.kubelet.bucket import TokenBucket
from gpu_fraction.sandbox.kubelet.devices import AdmissionError, DeviceManager, StartError
from gpu_fraction.sandbox.kubelet.runtime import CdiRuntime, Started, UnresolvableError

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class KubeletPod:
    """A pod as far as the kubelet's device manager knows it.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        uid: Its UID.
        containers: Containers that ask for the resource and that PodResources lists.
        init_containers: Regular init containers that ask for it; PodResources omits them.
    """

    namespace: str
    name: str
    uid: str
    containers: tuple[str, ...]
    init_containers: tuple[str, ...] = ()


class _Registration(plugin_grpc.RegistrationServicer):
    def __init__(self, devices: DeviceManager) -> None:
        self._devices = devices

    async def Register(  # noqa: N802 - the protocol's name
        self, request: plugin_api.RegisterRequest, context: _Context
    ) -> plugin_api.Empty:
        """Take a plugin."""
        del context
        await self._devices.register(request)
        return plugin_api.Empty()


class _PodResources(api_grpc.PodResourcesListerServicer):
    def __init__(self, kubelet: "FakeKubelet") -> None:
        self._kubelet = kubelet

    async def List(  # noqa: N802
        self, request: api.ListPodResourcesRequest, context: _Context
    ) -> api.ListPodResourcesResponse:
        """Every active pod with its devices, rate limited."""
        del request
        if not self._kubelet.bucket.take():
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rpc rejected by rate limit")
        return self._kubelet.pod_resources()

    async def GetAllocatableResources(  # noqa: N802
        self, request: api.AllocatableResourcesRequest, context: _Context
    ) -> api.AllocatableResourcesResponse:
        """Nothing that anybody here asks for."""
        del request, context
        return api.AllocatableResourcesResponse()

    async def Get(  # noqa: N802
        self, request: api.GetPodResourcesRequest, context: _Context
    ) -> api.GetPodResourcesResponse:
        """One pod by name."""
        for pod in self._kubelet.pod_resources().pod_resources:
            if (pod.namespace, pod.name) == (request.pod_namespace, request.pod_name):
                return api.GetPodResourcesResponse(pod_resources=pod)
        await context.abort(grpc.StatusCode.NOT_FOUND, "pod not found")
        raise AssertionError("abort returned")


class FakeKubelet:
    """One node's kubelet and container runtime."""

    def __init__(
        self, directory: Path, cdi: Path, resource: str, rng: random.Random | None = None
    ) -> None:
        """Use ``directory`` as ``/var/lib/kubelet`` and ``cdi`` as the runtime's CDI directory."""
        self.plugins = directory / "device-plugins"
        self.pod_resources_socket = directory / "pod-resources" / "kubelet.sock"
        self._resource = resource
        rng = rng or random.Random(0)  # noqa: S311 - which id is taken is no secret
        self.devices = DeviceManager(self.plugins, resource, rng)
        self.runtime = CdiRuntime(cdi)
        self.bucket = TokenBucket()
        self.pods: dict[str, KubeletPod] = {}
        self.running: dict[tuple[str, str], Started] = {}
        self.lists = 0
        self.delivered = True
        """Whether the sources of pods were heard since the start: until then there are none."""
        self._servers: list[grpc.aio.Server] = []

    async def start(self) -> None:
        """Remove every socket of the plugins' directory, then listen."""
        self.plugins.mkdir(parents=True, exist_ok=True)
        self.pod_resources_socket.parent.mkdir(parents=True, exist_ok=True)
        for path in self.plugins.iterdir():
            if path.is_socket():
                path.unlink()
        self.devices.start()
        registration, lister = grpc.aio.server(), grpc.aio.server()
        plugin_grpc.add_RegistrationServicer_to_server(_Registration(self.devices), registration)
        api_grpc.add_PodResourcesListerServicer_to_server(_PodResources(self), lister)
        self.pod_resources_socket.unlink(missing_ok=True)
        lister.add_insecure_port(f"unix:{self.pod_resources_socket}")
        registration.add_insecure_port(f"unix:{self.plugins / 'kubelet.sock'}")
        self._servers = [lister, registration]
        for server in self._servers:
            await server.start()

    async def stop(self) -> None:
        """Vanish; containers go on running."""
        await self.devices.stop()
        for server in self._servers:
            await server.stop(None)
        self._servers = []

    async def kill(self) -> None:
        """Vanish and leave the socket behind, on which nothing listens."""
        await self.stop()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.plugins / "kubelet.sock"))

    async def restart(self, *, delivered: bool = True) -> None:
        """Stop and start again: the plugin is unknown until it registers.

        Args:
            delivered: False where the API server does not answer the new kubelet yet, so that
                it knows its allocations but no pod, until ``delivered`` is set.
        """
        await self.stop()
        self.delivered = delivered
        await self.start()

    async def admit(self, pod: KubeletPod, ids: Collection[str] = ()) -> None:
        """Take a pod, with these ids where given (which may be another pod's).

        Raises:
            AdmissionError: the pod is Failed, or not heard of yet.
        """
        if not self.delivered:
            raise AdmissionError("no source has delivered pods")
        self.pods[pod.uid] = pod
        try:
            await self.devices.allocate(pod.uid, pod.init_containers + pod.containers, ids)
        except BaseException:
            del self.pods[pod.uid]
            self.devices.forget(pod.uid)
            raise

    async def start_container(self, uid: str, container: str) -> Started:
        """Start a container, the first time or again.

        Raises:
            StartError: not now.
        """
        if not self.delivered:
            raise StartError("no source has delivered pods")
        allocated = await self.devices.pre_start(uid, container)
        if uid not in self.pods:
            raise StartError("the pod is gone")
        try:
            started = self.runtime.create(uid, container, allocated.cdi_names)
        except UnresolvableError as e:
            raise StartError(str(e)) from e
        self.running[uid, container] = started
        return started

    def stop_container(self, uid: str, container: str) -> None:
        """The container exits."""
        self.running.pop((uid, container), None)

    def remove(self, uid: str) -> None:
        """The pod is gone from this node, its containers with it."""
        self.pods.pop(uid, None)
        self.devices.forget(uid)
        self.running = {key: run for key, run in self.running.items() if key[0] != uid}

    def pod_resources(self) -> api.ListPodResourcesResponse:
        """One entry a container and id, as the kubelet answers: of the pods it knows now."""
        self.lists += 1
        held = {(a.uid, a.container): a.ids for a in self.devices.allocated if a.answer}
        return api.ListPodResourcesResponse(
            pod_resources=[
                api.PodResources(
                    namespace=pod.namespace,
                    name=pod.name,
                    containers=[
                        api.ContainerResources(
                            name=container,
                            devices=[
                                api.ContainerDevices(
                                    resource_name=self._resource, device_ids=[device]
                                )
                                for device in held.get((pod.uid, container), ())
                            ],
                        )
                        for container in pod.containers
                    ],
                )
                for pod in (self.pods.values() if self.delivered else ())
            ]
        )
