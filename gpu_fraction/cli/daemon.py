"""What the command lines of all daemons have in common."""

import argparse
import asyncio
import importlib
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from prometheus_client import GC_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from gpu_fraction.cli import config
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.option import print_config
from gpu_fraction.settings.parsers import choice

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse names no other type
"""Where the program's commands are declared."""

D = TypeVar("D", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class EventLoop:
    """For daemons whose requests are waited for (docs/adr/0004)."""

    event_loop: str = setting(choice("uvloop", "asyncio"), "uvloop", "what asyncio runs on")


def add_daemon(
    commands: Commands,
    *,
    name: str,
    cls: type[D],
    serve: Callable[[D, Mapping[str, str]], None],
    summary: str,
    description: str,
) -> None:
    """Declare a daemon's command: its settings as flags, and how to see them.

    Args:
        commands: Where to.
        name: The command's name.
        cls: The daemon's settings.
        serve: Runs the daemon to its end, by its settings and the environment.
        summary: One line for the list of commands.
        description: What a person needs to know, with an example.
    """

    def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
        if args.print_config:
            sys.stdout.write(print_config(config.values(cls, args, environ)))
        else:
            serve(config.settings(cls, args, environ), environ)
        return 0

    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print every setting and its source, and exit"
    )
    config.declare(parser, cls)
    parser.set_defaults(run=run)


def run_on(event_loop: str, work: Coroutine[None, None, None]) -> None:
    """Run a daemon's work to its end.

    Args:
        event_loop: One of the choices of ``EventLoop``.
        work: What to run.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if event_loop == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


def process() -> tuple[CollectorRegistry, asyncio.Event]:
    """Prepare the process; call it inside the running loop.

    Returns:
        Its metrics, and an event that SIGTERM and SIGINT set.
    """
    registry = CollectorRegistry()
    registry.register(PROCESS_COLLECTOR)
    registry.register(GC_COLLECTOR)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return registry, stop
