"""``gpu-fraction node-daemon``: the daemon of one GPU node, wired together."""

import asyncio
from collections.abc import Mapping
from typing import Final

from gpu_fraction.cli import cluster
from gpu_fraction.cli.daemon import Commands, add_daemon, process_registry, stop_on_signals
from gpu_fraction.kube.access import AccessSource
from gpu_fraction.serving import logs
from gpu_fraction.settings.option import SettingsError, Value
from node_daemon import settings as node_options

DESCRIPTION: Final = """\
Advertise this node's GPU slices to its kubelet, and give each container exactly its own.

Runs as root on every GPU node, with the kubelet's directory, its own state directory and the CDI
directory of the container runtime mounted. SIGTERM leaves running containers as they are.

Every setting may be given as a flag, as a variable GPU_FRACTION_NAME or in the --config file
(YAML); the first of these wins.

example:
  gpu-fraction node-daemon --node-name "$NODE_NAME" --slots-per-card 16
"""

__all__ = ["add_parser", "serve"]


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    add_daemon(
        commands,
        "node-daemon",
        summary="advertise and hand out this node's GPU slices",
        description=DESCRIPTION,
        groups={
            "the node": node_options.OPTIONS,
            "which cluster": cluster.OPTIONS,
        },
        serve=serve,
    )


def serve(values: Mapping[str, Value], environ: Mapping[str, str]) -> None:
    """Run the daemon to its end."""
    settings = node_options.node_daemon_settings(values)
    if settings.node_name is None:
        raise SettingsError(["--node-name is needed: the name of the Node this runs on"])
    cluster.require(values, environ)
    source = cluster.access(values, environ)
    asyncio.run(_serve(settings, settings.node_name, source))


async def _serve(
    settings: node_options.NodeDaemonSettings, node_name: str, source: AccessSource
) -> None:
    # Imported here: the command line's help must not need gRPC and NVML.
    from node_daemon.app import NodeDaemon  # noqa: PLC0415
    from node_daemon.state.errors import StoreError  # noqa: PLC0415

    logs.configure(settings.log_level)
    registry = process_registry()
    stop = stop_on_signals()
    async with cluster.connected(source, component="node-daemon", registry=registry) as client:
        try:
            await NodeDaemon(settings, node_name, client, registry).run(stop)
        except StoreError as e:
            raise SettingsError([str(e)]) from e
