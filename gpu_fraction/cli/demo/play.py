"""Plays the story, and keeps the cluster where that was asked for."""

import asyncio
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

import structlog

from gpu_fraction.cli.demo import view
from gpu_fraction.cli.demo.cluster import DemoCluster, running
from gpu_fraction.cli.demo.screen import Screen, screen
from gpu_fraction.cli.demo.story import TEAM_A, TEAM_B, Story, StoryError
from gpu_fraction.domain import keys
from gpu_fraction.node_daemon.cards.simulated import FAULT_ANNOTATION

NODES: Final = ("gpu-1", "gpu-2")

INTRODUCTION: Final = """\
A cluster in this process, without a GPU.
real:       webhook, controller, certificates, scheduler extender, node daemon, kubelet protocols
simulated:  API server, kube-scheduler, Deployments, kubelets, containers, cards"""

NEXT: Final = """
Next:
  gpu-fraction demo --keep              this cluster for your own kubectl
  gpu-fraction mutate -f FILE -o diff   what the webhook makes of your manifests
  docs/installation.md                  your own cluster, with GPUs or with simulated cards"""


def run(*, keep: bool) -> int:
    """Play the story; the exit code."""
    # Sockets lie below, whose paths have 107 bytes: TMPDIR may leave too few.
    root = Path(tempfile.mkdtemp(prefix="gpu-fraction-demo-", dir="/tmp"))
    log = root / "demo.log"
    failed: BaseException | None = None
    try:
        with log.open("w", encoding="utf-8") as file:
            _log_to(file)
            asyncio.run(_play(root, screen(sys.stdout), keep=keep))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    except (StoryError, ExceptionGroup, TimeoutError) as e:
        failed = _first(e)
        if isinstance(failed, BrokenPipeError):  # the reader has enough
            failed = None
            raise BrokenPipeError from e
        sys.stderr.write(f"gpu-fraction demo: {failed}\nwhat the programs logged: {log}\n")
        return 1
    finally:
        if failed is None:
            shutil.rmtree(root, ignore_errors=True)
    return 0


async def _play(root: Path, told: Screen, *, keep: bool) -> None:
    if (task := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    told.say(INTRODUCTION)
    async with running(root, *NODES) as cluster:
        cards = view.cards(cluster.server.storage)
        told.say(f"cards:      {len(cards)} on {len(NODES)} nodes, each {cards[0].model}")
        async with told.follow(cluster.server.storage):
            for scene in Story(cluster).scenes:
                await told.begin(scene.title)
                await told.end(await scene.play())
        if keep:
            told.say(_to_try(cluster))
            await _interrupted()
    if not keep:
        told.say(NEXT)


def _to_try(cluster: DemoCluster) -> str:
    return f"""
The cluster runs until Ctrl-C. In another terminal:
  export KUBECONFIG={cluster.kubeconfig}
  gpu-fraction status
  kubectl get pods -A
  kubectl describe node gpu-1
  kubectl get gpuquotas -A
  kubectl -n {TEAM_A} get events
  kubectl -n {TEAM_B} run mine --image=none --annotations={keys.FRACTION}=0.5
  gpu-fraction explain pod mine -n {TEAM_B}
  kubectl -n {TEAM_B} scale deployment inference --replicas=2
  kubectl annotate node gpu-2 {FAULT_ANNOTATION}-     # the sick card recovers"""


async def _interrupted() -> None:
    """Return on Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _log_to(file: object) -> None:
    """Send the components' log lines to a file: the screen is for the story."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
        logger_factory=structlog.PrintLoggerFactory(file),  # type: ignore[arg-type]
    )
    logging.basicConfig(stream=file, level=logging.WARNING, force=True)  # type: ignore[call-overload]


def _first(error: BaseException) -> BaseException:
    """What went wrong, without the groups around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
