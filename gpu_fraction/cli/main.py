"""The ``gpu-fraction`` command."""

import argparse
import os
import sys
from typing import cast

from gpu_fraction.cli import controller, demo, mutate, webhook
from gpu_fraction.settings.option import SettingsError

__all__ = ["main"]


def main() -> int:
    """Parse the arguments and run the command they name.

    Exit codes: 0 done, 1 a pod was refused, 2 the command cannot run as it was called.
    """
    parser = argparse.ArgumentParser(
        prog="gpu-fraction",
        description="One pod annotation becomes the right slice of a GPU on Kubernetes.",
        epilog="gpu-fraction COMMAND --help says more.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (mutate, webhook, controller, demo):
        command.add_parser(commands)
    args = parser.parse_args()
    try:
        return cast("int", args.run(args, os.environ))
    except SettingsError as e:
        for error in e.errors:
            sys.stderr.write(f"gpu-fraction: {error}\n")
        return 2
    except BrokenPipeError:
        # Somebody closed our output (`| head`); that is their right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
