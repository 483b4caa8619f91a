"""Times as the API writes them: RFC 3339, always UTC.

They are for people and for comparison by the server; deadlines are never computed from them,
because clocks step and differ between machines.
"""

from datetime import UTC, datetime


def micro_time(now: datetime) -> str:
    """A MicroTime, as Leases and events use: always six digits of fraction.

    Source: apimachinery pkg/apis/meta/v1/micro_time.go, RFC3339Micro.

    Raises:
        ValueError: the time has no time zone.
    """
    return _utc(now).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time(now: datetime) -> str:
    """A Time, as metadata and core events use: whole seconds.

    Raises:
        ValueError: the time has no time zone.
    """
    return _utc(now).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment}: a time without a zone is nobody's time")
    return moment.astimezone(UTC)
