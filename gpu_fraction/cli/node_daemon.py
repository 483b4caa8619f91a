"""``gpu-fraction node-daemon``: the daemon of one GPU node, wired together."""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from typing import Final

from gpu_fraction.cli.config import load_options
from gpu_fraction.cli.daemon import add_daemon, process_registry, stop_on_signals
from gpu_fraction.settings.option import SettingsError, print_config
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

__all__ = ["add_parser", "run"]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    add_daemon(
        commands,
        "node-daemon",
        summary="advertise and hand out this node's GPU slices",
        description=DESCRIPTION,
        groups={
            "the node": node_options.OPTIONS,
        },
        run=run,
    )


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    values = load_options(node_options.OPTIONS, args, environ)
    if args.print_config:
        sys.stdout.write(print_config(values))
        return 0
    settings = node_options.node_daemon_settings(values)
    if settings.node_name is None:
        raise SettingsError(["--node-name is needed: the name of the Node this runs on"])
    asyncio.run(_serve(settings, settings.node_name, environ))
    return 0


async def _serve(
    settings: node_options.NodeDaemonSettings, node_name: str, environ: Mapping[str, str]
) -> None:
    # Imported here: the command line's help must not need gRPC and NVML.
    from gpu_fraction.kube.access import default_source  # noqa: PLC0415
    from gpu_fraction.kube.client import connect  # noqa: PLC0415
    from gpu_fraction.kube.metrics import KubeMetrics  # noqa: PLC0415
    from gpu_fraction.serving import logs  # noqa: PLC0415
    from node_daemon.app import NodeDaemon  # noqa: PLC0415

    logs.configure(settings.log_level)
    registry = process_registry()
    stop = stop_on_signals()
    source = default_source(environ, path=settings.kubeconfig)
    observer = KubeMetrics(registry)
    async with connect(source, component="node-daemon", observer=observer) as client:
        daemon = NodeDaemon(settings, node_name, client, registry)
        await daemon.run(stop)
