"""Times as the API writes them: RFC 3339, always UTC.

They are for people and for comparison by the server. No deadline is computed from them, because
clocks step and differ between machines.
"""

from datetime import UTC, datetime


def micro_time(now: datetime) -> str:
    """A MicroTime, as Leases and events use: always six digits of fraction.

    Source: apimachinery pkg/apis/meta/v1/micro_time.go, RFC3339Micro.
    """
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time(now: datetime) -> str:
    """A Time, as metadata and core events use: whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)
