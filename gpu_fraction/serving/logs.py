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
"""Seconds that a line may wait for others: chosen, too short to notice, and a killed process loses
at most the lines of this time."""

_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)


def _line(_logger: object, method: str, event: structlog.typing.EventDict) -> bytes:
    """Add level and time, and encode the line, in one step: every request logs a line."""
    event["level"] = method
    # Seconds since the epoch: formatting a date costs as much as the rest of the line.
    event["ts"] = time.time()
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(_logger, method, event)
    return _ENCODER.encode(event)


class _LoopOutput:
    """Collects lines within ``FLUSH_S`` into one write, the most expensive part of a line.

    Warnings and errors, and lines from threads without an event loop, are written at once. Every
    write uses the current standard output, which may be replaced or closed. A failed write, as on
    a full disk, raises nothing; the next successful one logs the number of possibly lost lines.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._waiting_in: asyncio.AbstractEventLoop | None = None
        self._writing = threading.Lock()
        self._not_written = 0

    def msg(self, line: bytes) -> None:
        """Collect one line."""
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
        """Collect one line and write all lines."""
        self._lines.append(line)
        self.flush()

    debug = info = msg
    warning = error = critical = urgent

    def flush(self) -> None:
        """Write all collected lines."""
        with self._writing:
            # The order matters: a line that another thread adds meanwhile is in the list, or
            # its own flush follows.
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
    except (OSError, ValueError):  # ValueError: closed
        return False
    return True


class _Handler(logging.StreamHandler[TextIO]):
    """Writes the lines of libraries to the current standard output."""

    @property
    def stream(self) -> TextIO:
        """Standard output."""
        return sys.stdout

    @stream.setter
    def stream(self, _stream: TextIO) -> None:
        """Ignore; only standard output is used."""


def configure(level: str = "info") -> None:
    """Set up logging for the process; libraries log in the same format.

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
