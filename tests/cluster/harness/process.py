"""One program of the cluster: started, watched, stopped, killed, started again."""

import os
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_POLL_S = 0.05
_PROBE_TIMEOUT_S = 2
_TAIL_LINES = 25


class ComponentError(Exception):
    """A program of the cluster ended, or was not ready in time; the message ends with its log."""


@dataclass(slots=True)
class Process:
    """A program that runs in the background.

    Attributes:
        name: for messages and the log's name.
        argv: the command; changes take effect at the next start.
        log: its standard output and error, appended.
        env: its whole environment.
        health_url: answers with status 200 when it is ready; empty if there is none.
        authority: path of the certificate that ``health_url`` is trusted by.
    """

    name: str
    argv: Sequence[str | Path]
    log: Path
    env: Mapping[str, str]
    health_url: str = ""
    authority: Path | None = None
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            ComponentError: it is not running.
        """
        self.check()
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Starts it; does nothing while it runs."""
        if self.running:
            return
        with self.log.open("ab") as output:
            # Its own session: Ctrl-C ends the tests, and the tests then stop the cluster in order.
            self._child = subprocess.Popen(
                [str(word) for word in self.argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self.env),
                cwd="/",
                start_new_session=True,
            )

    def stop(self, grace_s: float = 10) -> None:
        """SIGTERM, and SIGKILL if it has not ended after ``grace_s``."""
        self._end(signal.SIGTERM)
        if self._child is not None:
            try:
                self._child.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self._child = None

    def kill(self) -> None:
        """SIGKILL, as a crash would end it; returns when it is gone."""
        self._end(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()
        self._child = None

    def restart(self) -> None:
        """Stops it in good order and starts it again."""
        self.stop()
        self.start()

    def wait_healthy(self, timeout_s: float = 60) -> None:
        """Waits until ``health_url`` answers.

        Raises:
            ComponentError: the program ended, or does not answer in time.
        """
        trust = ssl.create_default_context(cafile=self.authority) if self.authority else None
        self.wait_until(lambda: _answers(self.health_url, trust), timeout_s, "healthy")

    def wait_until(self, ready: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Waits for a condition while the program lives.

        Args:
            ready: asked every 50 ms.
            timeout_s: how long at most.
            what: the condition in words.

        Raises:
            ComponentError: the program ended, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ComponentError(f"{self.name}: not {what} after {timeout_s} s{self.tail()}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Checks that it runs.

        Raises:
            ComponentError: it does not.
        """
        if self._child is None:
            raise ComponentError(f"{self.name} is not running")
        if (status := self._child.poll()) is not None:
            raise ComponentError(f"{self.name} ended with status {status}{self.tail()}")

    def tail(self) -> str:
        """The last lines of its log, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n" + "\n".join(lines)

    def _end(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            os.kill(self._child.pid, number)


def _answers(url: str, trust: ssl.SSLContext | None) -> bool:
    try:
        with urllib.request.urlopen(  # noqa: S310 - our own servers
            url, timeout=_PROBE_TIMEOUT_S, context=trust
        ) as answer:
            return bool(answer.status == 200)
    except OSError:  # refused, not in time, or a status of 400 or above
        return False
