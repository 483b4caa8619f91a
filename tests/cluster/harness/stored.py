"""What the API server has stored, compared with what was wanted."""

from typing import Any


def holds(stored: Any, wanted: Any, at: str = "") -> list[str]:
    """The places where ``stored`` lacks or differs from ``wanted``; more is no difference."""
    if isinstance(wanted, dict):
        if not isinstance(stored, dict):
            return [at]
        return [p for k, v in wanted.items() for p in holds(stored.get(k), v, f"{at}.{k}")]
    if isinstance(wanted, list):
        if not isinstance(stored, list) or len(stored) != len(wanted):
            return [f"{at}: {stored} instead of {wanted}"]
        return [
            p
            for i, (s, w) in enumerate(zip(stored, wanted, strict=True))
            for p in holds(s, w, f"{at}[{i}]")
        ]
    return [] if stored == wanted else [f"{at}: {stored!r} instead of {wanted!r}"]


def own_tolerations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Without those that the API server's plugin DefaultTolerationSeconds adds."""
    return [
        one
        for one in spec["tolerations"]
        if not one.get("key", "").startswith("node.kubernetes.io/")
    ]
