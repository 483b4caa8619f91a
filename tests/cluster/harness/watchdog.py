"""Removes a run as soon as the test process that owns it is gone.

Its standard input is a pipe whose other end only that process holds: the kernel closes it however
the process ends. Run as ``python -m tests.cluster.harness.watchdog FOLDER``.
"""

import sys
from pathlib import Path

from tests.cluster.harness.run_directory import reap_one


def main() -> None:
    """Waits for the end of input, then removes the run, if that was not done already."""
    sys.stdin.buffer.read()
    reap_one(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
