"""Log lines: JSON on standard output, one event name and key-values each."""

import logging
import sys
from typing import Any, Final

import msgspec
import structlog

LEVELS: Final = ("debug", "info", "warning", "error")

__all__ = ["LEVELS", "configure"]

_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)


def _encode(value: object, **_: Any) -> bytes:
    return _ENCODER.encode(value)


def configure(level: str = "info") -> None:
    """Set up logging for the process; libraries' own lines come out in the same form.

    Args:
        level: One of ``LEVELS``.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.processors.add_log_level,
        # Seconds since the epoch: spelling a date out costs as much as the rest of the line.
        structlog.processors.TimeStamper(fmt=None, key="ts"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_encode)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(
                    serializer=lambda value, **_: _ENCODER.encode(value).decode()
                ),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
