"""What a plan is made of: steps to carry out, and things to say."""

from dataclasses import dataclass

from certs.certificate import Certificate
from certs.observation import Target
from certs.state import CaState, Phase

__all__ = ["Action", "Notice", "Plan", "PublishBundle", "StageAuthority", "WriteState"]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person may want to know; becomes an Event.

    Attributes:
        reason: CamelCase, stable.
        message: One sentence.
        warning: Whether somebody should look.
    """

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class WriteState:
    """Write the Secret, unless it has changed since it was read."""

    state: CaState
    notice: Notice


@dataclass(frozen=True, slots=True)
class StageAuthority:
    """Make a CA and write the Secret with it as the next one, in phase Trust."""

    state: CaState
    notice: Notice


@dataclass(frozen=True, slots=True)
class PublishBundle:
    """Write the caBundle of one webhook, unless its configuration has changed.

    Attributes:
        target: The configuration as it was read.
        entry: The webhook in it.
        certificates: What the caBundle shall hold.
        must_trust: Fingerprints that replicas serve from and that it must not lose.
    """

    target: Target
    entry: str
    certificates: tuple[Certificate, ...]
    must_trust: frozenset[str] = frozenset()


Action = WriteState | StageAuthority | PublishBundle


@dataclass(frozen=True, slots=True)
class Plan:
    """The next step.

    Attributes:
        phase: The phase that is in progress.
        actions: To be carried out in order; none means: wait.
        notices: What holds at the moment, whether or not anything is done.
        wake_in_s: When to look again even if nothing changes; 0 after an action.
    """

    phase: Phase
    actions: tuple[Action, ...] = ()
    notices: tuple[Notice, ...] = ()
    wake_in_s: float = 0.0
