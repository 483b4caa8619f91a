"""Log lines: JSON on standard output, one event name and key-values each."""

import asyncio
import atexit
import logging
import sys
import threading
import time
from typing import Final, TextIO

import msgspec
import structlog

LEVELS: Final = ("debug", "info", "warning", "error")

FLUSH_S: Final = 0.01
"""How long a line may wait for others: chosen, nobody who reads along notices it, and a process
that is killed leaves at most this much untold."""

_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)


def _line(_logger: object, method: str, event: structlog.typing.EventDict) -> bytes:
    """Level and time added, and the line made: one step, because there is a line a request."""
    event["level"] = method
    # Seconds since the epoch: spelling a date out costs as much as the rest of the line.
    event["ts"] = time.time()
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(_logger, method, event)
    return _ENCODER.encode(event)


class _LoopOutput:
    """Lines that come close together go out in one write: writes are most of what a line costs.

    Nothing waits longer than ``FLUSH_S``, warnings and errors not at all; without a loop, as in
    threads, every line goes out at once. What standard output is, is asked at every write: it
    may be replaced or closed. One that takes nothing, as on a full disk, fails nobody who logs:
    the next write that succeeds says how many lines may be missing.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._waiting_in: asyncio.AbstractEventLoop | None = None
        self._writing = threading.Lock()
        self._not_written = 0

    def msg(self, line: bytes) -> None:
        """Take one line."""
        self._lines.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if self._waiting_in is not loop:
            self._waiting_in = loop
            loop.call_later(FLUSH_S, self.flush)

    def urgent(self, line: bytes) -> None:
        """Take one line and write all that have been taken."""
        self._lines.append(line)
        self.flush()

    debug = info = msg
    warning = error = critical = urgent

    def flush(self) -> None:
        """Write what has been taken."""
        with self._writing:
            # In this order: a line that another thread takes meanwhile is in the list, or its
            # own flush is to come.
            self._waiting_in = None
            lines = self._lines[:]
            del self._lines[: len(lines)]
            if not lines:
                return
            if not _written(lines):
                self._not_written += len(lines)
            elif self._not_written:
                told = {"event": "log_not_written", "lines": self._not_written}
                if _written([_line(None, "error", told)]):
                    self._not_written = 0


def _written(lines: list[bytes]) -> bool:
    try:
        sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
        sys.stdout.buffer.flush()
    except (OSError, ValueError):  # ValueError: it is closed
        return False
    return True


class _Handler(logging.StreamHandler[TextIO]):
    """Libraries' lines on what standard output is now."""

    @property
    def stream(self) -> TextIO:
        """Standard output."""
        return sys.stdout

    @stream.setter
    def stream(self, _stream: TextIO) -> None:
        """Nothing else is written to."""


def configure(level: str = "info") -> None:
    """Set up logging for the process; libraries' own lines come out in the same form.

    Args:
        level: One of ``LEVELS``.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    output = _LoopOutput()
    atexit.register(output.flush)
    structlog.configure(
        processors=[_line],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=True,
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda *line: _line(*line).decode(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
