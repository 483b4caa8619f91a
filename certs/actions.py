"""The content of a plan: actions, and notices for people."""

from dataclasses import dataclass

from gpu_fraction.certs.bundle import Target
from gpu_fraction.certs.certificate import Certificate
from gpu_fraction.certs.state import CaState, Phase


@dataclass(frozen=True, slots=True)
class Notice:
    """A message for people; becomes an Event.

    Attributes:
        reason: CamelCase, stable.
        message: One sentence.
        warning: Whether a person should act.
    """

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class WriteState:
    """Write the Secret, unless it has changed since it was read.

    Attributes:
        state: The content to write.
        notice: Reported once it is written.
        new_ca: Make a CA first and store it as the next one, in phase Trust.
    """

    state: CaState
    notice: Notice
    new_ca: bool = False


@dataclass(frozen=True, slots=True)
class PublishBundle:
    """Write the caBundle of one webhook, unless its configuration has changed.

    Attributes:
        target: The configuration as it was read.
        entry: The webhook in it.
        certificates: The certificates to put into the caBundle.
        must_trust: Fingerprints of CAs that replicas serve from; they must stay in it.
    """

    target: Target
    entry: str
    certificates: tuple[Certificate, ...]
    must_trust: frozenset[str] = frozenset()


Action = WriteState | PublishBundle


@dataclass(frozen=True, slots=True)
class Plan:
    """The next step.

    Attributes:
        phase: The phase that is in progress.
        actions: Carried out in order; empty to wait.
        notices: Notices that hold now, with or without actions.
        wake_in_s: Seconds until the next plan, even if nothing changes; 0 after an action.
    """

    phase: Phase
    actions: tuple[Action, ...] = ()
    notices: tuple[Notice, ...] = ()
    wake_in_s: float = 0.0
