"""What the command lines of all daemons have in common."""

import argparse
from collections.abc import Callable, Mapping, Sequence

from gpu_fraction.settings.option import Option, add_flags

Run = Callable[[argparse.Namespace, Mapping[str, str]], int]
"""Arguments and environment to an exit code."""

__all__ = ["Run", "add_daemon"]


def add_daemon(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    *,
    summary: str,
    description: str,
    groups: Mapping[str, Sequence[Option]],
    run: Run,
) -> None:
    """Declare a daemon's command: its settings as flags, and how to see them.

    Args:
        commands: Where to.
        name: The command's name.
        summary: One line for the list of commands.
        description: What a person needs to know, with an example.
        groups: The options under their headings.
        run: Runs the command.
    """
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
