"""The ``gpu-fraction`` command."""

import argparse
import importlib
import os
import sys
from typing import Final, cast

from gpu_fraction.settings.option import SettingsError

COMMANDS: Final = (
    "mutate",
    "convert",
    "backends",
    "webhook",
    "controller",
    "scheduler-extender",
    "scheduler-certs",
    "node-daemon",
    "certs",
    "demo",
)
"""Modules of this package; only the module of the given command is imported, so that a daemon
does not load the libraries of the others."""


def main() -> int:
    """Parse the arguments and run the command they name.

    Exit codes: 0 success, 1 a pod was refused or the API server failed, 2 the arguments, settings
    or cluster are unusable.
    """
    parser = argparse.ArgumentParser(
        prog="gpu-fraction",
        description="One pod annotation becomes the right slice of a GPU on Kubernetes.",
        epilog="Run gpu-fraction COMMAND --help for details.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in [name for name in COMMANDS if name in sys.argv[1:2]] or COMMANDS:
        module = importlib.import_module(f"gpu_fraction.cli.{name.replace('-', '_')}")
        module.add_parser(commands)
    for command in commands.choices.values():
        command.formatter_class = argparse.RawDescriptionHelpFormatter
    args = parser.parse_args()
    try:
        return cast("int", args.run(args, os.environ))
    except SettingsError as e:
        for error in e.errors:
            sys.stderr.write(f"gpu-fraction: {error}\n")
        return 2
    except BrokenPipeError:
        # The reader closed the pipe (`| head`), which is not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
