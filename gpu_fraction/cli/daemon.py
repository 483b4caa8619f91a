"""Shared parts of the daemons' command lines."""

import argparse
import asyncio
import importlib
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import GC_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from gpu_fraction.cli import config
from gpu_fraction.cli.config import Commands
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.option import print_config
from gpu_fraction.settings.parsers import choice

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class EventLoop:
    """The event loop of latency-sensitive daemons (docs/adr/0004)."""

    event_loop: str = setting(choice("uvloop", "asyncio"), "uvloop", "event loop implementation")


def add_daemon(
    name: str,
    cls: type[D],
    serve: Callable[[D, Mapping[str, str]], None],
    description: str,
    commands: Commands,
) -> None:
    """Declare a daemon's command with its settings as flags.

    Args:
        name: The command's name.
        cls: The daemon's settings.
        serve: Runs the daemon with its settings and the environment.
        description: The text of ``--help``, with an example.
        commands: The parsers of the commands.
    """

    def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
        if args.print_config:
            sys.stdout.write(print_config(config.values(cls, args, environ)))
        else:
            serve(config.settings(cls, args, environ), environ)
        return 0

    parser = commands.add_parser(name, description=description)
    parser.add_argument(
        "--print-config", action="store_true", help="print every setting with its source and exit"
    )
    config.declare(parser, cls)
    parser.set_defaults(run=run)


def run_on(event_loop: str, work: Coroutine[None, None, None]) -> None:
    """Run a daemon to its end.

    Args:
        event_loop: A choice of ``EventLoop``.
        work: The daemon.
    """
    uvloop = importlib.import_module("uvloop") if event_loop == "uvloop" else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
        runner.run(work)


def process() -> tuple[CollectorRegistry, asyncio.Event]:
    """Set up metrics and signals; call this inside the running loop.

    Returns:
        The registry of the process, and an event that SIGTERM and SIGINT set.
    """
    registry = CollectorRegistry()
    registry.register(PROCESS_COLLECTOR)
    registry.register(GC_COLLECTOR)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return registry, stop
