"""What a command could not read, for people and for programs."""

from typing import Any

from gpu_fraction.dashboard.snapshot import Gap


def gap_text(gap: Gap) -> str:
    """One line: what, why, and where it could be read nevertheless."""
    where = f" (shown: {', '.join(gap.namespaces)})" if gap.namespaces else ""
    return f"{gap.what}: {gap.why}{where}: {gap.text}"


def gap_record(gap: Gap) -> dict[str, Any]:
    """The same for programs."""
    return {
        "what": gap.what,
        "why": gap.why,
        "text": gap.text,
        "namespaces": list(gap.namespaces),
    }
