"""What the command lines of all daemons have in common."""

import argparse
import asyncio
import importlib
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import chain
from typing import Final, TypeAlias

from prometheus_client import GC_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from gpu_fraction.cli.config import load_options
from gpu_fraction.settings.option import Option, Value, add_flags, choice, print_config

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse names no other type
"""Where the program's commands are declared."""

Serve = Callable[[Mapping[str, Value], Mapping[str, str]], None]
"""Runs a daemon by its settings and the environment."""

EVENT_LOOP: Final = Option("event_loop", choice("uvloop", "asyncio"), "uvloop", "uvloop, asyncio")
"""For daemons whose requests somebody waits for (docs/adr/0004)."""

__all__ = [
    "EVENT_LOOP",
    "Commands",
    "Serve",
    "add_daemon",
    "process_registry",
    "run_on",
    "stop_on_signals",
]


def add_daemon(
    commands: Commands,
    name: str,
    *,
    summary: str,
    description: str,
    groups: Mapping[str, Sequence[Option]],
    serve: Serve,
) -> None:
    """Declare a daemon's command: its settings as flags, and how to see them.

    Args:
        commands: Where to.
        name: The command's name.
        summary: One line for the list of commands.
        description: What a person needs to know, with an example.
        groups: The options under their headings.
        serve: Runs the daemon to its end.
    """

    def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
        values = load_options(tuple(chain.from_iterable(groups.values())), args, environ)
        if args.print_config:
            sys.stdout.write(print_config(values))
        else:
            serve(values, environ)
        return 0

    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="settings file, YAML")
    parser.add_argument(
        "--print-config", action="store_true", help="print every setting and its source, and exit"
    )
    for title, options in groups.items():
        add_flags(parser, options, title)
    parser.set_defaults(run=run)


def run_on(event_loop: str, work: Coroutine[None, None, None]) -> None:
    """Run a daemon's work to its end.

    Args:
        event_loop: One of the choices of ``EVENT_LOOP``.
        work: What to run.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if event_loop == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


def process_registry() -> CollectorRegistry:
    """A registry of the daemon's own, with the metrics of its process."""
    registry = CollectorRegistry()
    registry.register(PROCESS_COLLECTOR)
    registry.register(GC_COLLECTOR)
    return registry


def stop_on_signals() -> asyncio.Event:
    """Set once SIGTERM or SIGINT has come; call it inside the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
