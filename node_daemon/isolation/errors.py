"""What can go wrong with isolation.

IsolationError
+-- NotEnforceableError   the pod requires what no engine on the card enforces
+-- EngineFailedError     an engine that should work did not; trying again may help
"""

__all__ = ["EngineFailedError", "IsolationError", "NotEnforceableError"]


class IsolationError(Exception):
    """The container must not start now; the message says why and what would help."""


class NotEnforceableError(IsolationError):
    """The pod requires what no engine on the card enforces."""


class EngineFailedError(IsolationError):
    """An engine that should work did not; trying again may help."""
