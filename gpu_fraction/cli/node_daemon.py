"""``gpu-fraction node-daemon``: the daemon of one GPU node."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from gpu_fraction.cli.cluster import ClusterSettings, connected
from gpu_fraction.cli.daemon import add_daemon, process
from gpu_fraction.kube.access import AccessSource
from gpu_fraction.node_daemon.settings import NodeDaemonSettings
from gpu_fraction.serving import logs
from gpu_fraction.settings.declaration import group
from gpu_fraction.settings.option import SettingsError

DESCRIPTION: Final = """\
Advertise this node's GPU slices to its kubelet, and give each container exactly its own slices.

Run it as root on every GPU node, with the kubelet's directory, its own state directory and the CDI
directory of the container runtime mounted. SIGTERM does not affect running containers.

example:
  gpu-fraction node-daemon --node-name "$NODE_NAME" --slots-per-card 16
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the command."""

    node: NodeDaemonSettings = group(NodeDaemonSettings, "the node")
    cluster: ClusterSettings = group(ClusterSettings, "cluster")


def serve(settings: Settings, environ: Mapping[str, str]) -> None:
    """Run the daemon."""
    asyncio.run(_serve(settings.node, settings.cluster.access(environ)))


add_parser = partial(
    add_daemon,
    "node-daemon",
    Settings,
    serve,
    DESCRIPTION,
)


async def _serve(settings: NodeDaemonSettings, source: AccessSource) -> None:
    # Imported here: --help must work without gRPC and NVML.
    from gpu_fraction.node_daemon.app import NodeDaemon  # noqa: PLC0415
    from gpu_fraction.node_daemon.state.errors import StoreError  # noqa: PLC0415

    logs.configure(settings.log_level)
    registry, stop = process()
    async with connected(source, component="node-daemon", registry=registry) as client:
        try:
            await NodeDaemon(settings, client, registry).run(stop)
        except StoreError as e:
            raise SettingsError([str(e)]) from e
