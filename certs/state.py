"""The stored state of the CA: one Secret, its data and the annotations of the rotation.

It holds everything that a rotation needs to continue after a crash. Unreadable parts are dropped
and named in ``problems``, so that the planner always has a state to start from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from gpu_fraction.certs import reading
from gpu_fraction.certs.certificate import Authority, Certificate
from gpu_fraction.certs.reading import PkiError
from gpu_fraction.domain import keys
from gpu_fraction.kube.timestamps import micro_time

PHASE: Final = keys.PREFIX + "certificate-phase"
SINCE: Final = keys.PREFIX + "certificate-phase-since"
REASON: Final = keys.PREFIX + "certificate-rotation-reason"
ROTATE_CA: Final = keys.PREFIX + "rotate-ca"
ROTATE_LEAF: Final = keys.PREFIX + "rotate-leaf"
ANNOTATIONS: Final = (PHASE, SINCE, REASON, ROTATE_CA, ROTATE_LEAF)

CURRENT_CRT: Final = "ca.crt"
CURRENT_KEY: Final = "ca.key"
NEXT_CRT: Final = "next-ca.crt"
NEXT_KEY: Final = "next-ca.key"
PREVIOUS_CRT: Final = "previous-ca.crt"
DATA_KEYS: Final = (CURRENT_CRT, CURRENT_KEY, NEXT_CRT, NEXT_KEY, PREVIOUS_CRT)


class Phase(StrEnum):
    """The phases of a rotation."""

    STEADY = "Steady"  # one CA, all replicas serve from it
    STAGE = "Stage"  # a rotation is decided, the next CA is being made
    TRUST = "Trust"  # the next CA is being added to every caBundle
    SETTLE = "Settle"  # every caBundle has it; API servers get time to receive that
    SWITCH = "Switch"  # replicas sign and serve from the next CA
    RETIRE = "Retire"  # no replica serves from the old CA; it stays trusted for a while


@dataclass(frozen=True, slots=True, kw_only=True)
class CaState:
    """The content of the Secret.

    Attributes:
        phase: Where the rotation is.
        since: When that phase was entered, UTC, by the writer's clock.
        current: The CA that signs leaves, except in Switch.
        next: The CA that is being introduced; in Switch it signs.
        previous: Certificates that stay trusted until they are retired.
        reason: Why the last rotation began, for people.
        rotate_ca: A person's request for a CA rotation; any non-empty text.
        rotate_leaf: A person's request for new leaves; replicas act when it changes.
        problems: Parts that could not be read and were dropped.
    """

    phase: Phase
    since: datetime
    current: Authority | None = None
    next: Authority | None = None
    previous: tuple[Certificate, ...] = ()
    reason: str = ""
    rotate_ca: str = ""
    rotate_leaf: str = ""
    problems: tuple[str, ...] = field(default=(), compare=False)

    def roles(self) -> list[tuple[str, Certificate]]:
        """Each certificate with its role: current, next or previous."""
        live = (("current", self.current), ("next", self.next))
        found = [(role, a.certificate) for role, a in live if a is not None]
        return [*found, *(("previous", c) for c in self.previous)]

    def authority(self, fingerprint: str) -> Authority | None:
        """The stored CA with this fingerprint, if it can sign."""
        for authority in (self.current, self.next):
            if authority is not None and authority.fingerprint == fingerprint:
                return authority
        return None


def read_state(
    data: Mapping[str, bytes], annotations: Mapping[str, str], now: datetime
) -> CaState:
    """The state in a Secret; unreadable and contradictory parts are repaired.

    Args:
        data: The Secret's data, decoded from base64.
        annotations: The Secret's annotations.
        now: The time, UTC; used if the beginning of the phase is missing or in the future.
    """
    problems: list[str] = []
    current, orphan = _authority(data, CURRENT_CRT, CURRENT_KEY, problems)
    staged, staged_orphan = _authority(data, NEXT_CRT, NEXT_KEY, problems)
    previous = _previous(data, problems)
    if current is not None and staged is not None and current.fingerprint == staged.fingerprint:
        problems.append(f"{NEXT_CRT} repeats {CURRENT_CRT}")
        staged = None
    # A CA without its key stays trusted, because its leaves may still be served.
    previous += [c for c in (orphan, staged_orphan) if c is not None]
    live = {a.fingerprint for a in (current, staged) if a is not None}
    unique = {c.fingerprint: c for c in previous if c.fingerprint not in live}
    state = CaState(
        phase=_phase(annotations, problems),
        since=_since(annotations, now, problems),
        current=current,
        next=staged,
        previous=tuple(unique.values()),
        reason=annotations.get(REASON, ""),
        rotate_ca=annotations.get(ROTATE_CA, ""),
        rotate_leaf=annotations.get(ROTATE_LEAF, ""),
    )
    return _consistent(state, now, problems)


def data_of(state: CaState) -> dict[str, bytes]:
    """The Secret's data for a state; keys that are absent are to be removed."""
    data: dict[str, str] = {}
    if state.current is not None:
        data |= {CURRENT_CRT: state.current.certificate.pem, CURRENT_KEY: state.current.key_pem}
    if state.next is not None:
        data |= {NEXT_CRT: state.next.certificate.pem, NEXT_KEY: state.next.key_pem}
    if state.previous:
        data[PREVIOUS_CRT] = "".join(c.pem for c in state.previous)
    return {key: text.encode("ascii") for key, text in data.items()}


def annotations_of(state: CaState) -> dict[str, str]:
    """The Secret's annotations for a state; those that are absent are to be removed."""
    annotations = {PHASE: state.phase.value, SINCE: micro_time(state.since)}
    annotations |= {REASON: state.reason, ROTATE_CA: state.rotate_ca}
    annotations |= {ROTATE_LEAF: state.rotate_leaf}
    return {key: value for key, value in annotations.items() if value}


def _authority(
    data: Mapping[str, bytes], crt: str, key: str, problems: list[str]
) -> tuple[Authority | None, Certificate | None]:
    """The CA in two data keys; else the certificate alone, if at least that is readable."""
    if crt not in data and key not in data:
        return None, None
    try:
        return reading.read_authority(data.get(crt, b""), data.get(key, b"")), None
    except PkiError as e:
        problems.append(f"{crt}: {e}")
    try:
        orphans = [c for c in reading.read_certificates(data.get(crt, b"")) if c.is_ca]
    except PkiError:
        return None, None
    return None, orphans[0] if orphans else None


def _previous(data: Mapping[str, bytes], problems: list[str]) -> list[Certificate]:
    if PREVIOUS_CRT not in data:
        return []
    try:
        return [c for c in reading.read_certificates(data[PREVIOUS_CRT]) if c.is_ca]
    except PkiError as e:
        problems.append(f"{PREVIOUS_CRT}: {e}")
        return []


def _phase(annotations: Mapping[str, str], problems: list[str]) -> Phase:
    text = annotations.get(PHASE, "")
    try:
        return Phase(text)
    except ValueError:
        problems.append(f"annotation {PHASE}={text!r} is not a phase")
        return Phase.STEADY


def _since(annotations: Mapping[str, str], now: datetime, problems: list[str]) -> datetime:
    text = annotations.get(SINCE, "")
    try:
        since = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        problems.append(f"annotation {SINCE}={text!r} is not a time")
        return now
    if since > now:
        # The writer's clock is ahead, or ours is behind. Waiting again is always safe.
        problems.append(f"annotation {SINCE}={text!r} is in the future")
        return now
    return since


def _consistent(state: CaState, now: datetime, problems: list[str]) -> CaState:
    """The state with a phase that its content allows."""
    phase = state.phase
    if phase in {Phase.TRUST, Phase.SETTLE, Phase.SWITCH} and state.next is None:
        phase = Phase.STAGE
    elif phase in {Phase.STEADY, Phase.RETIRE} and state.next is not None:
        phase = Phase.TRUST
    elif phase in {Phase.STEADY, Phase.RETIRE} and state.current is None:
        phase = Phase.STAGE
    elif phase is Phase.STEADY and state.previous:
        phase = Phase.RETIRE
    if phase is not state.phase:
        problems.append(f"phase {state.phase} does not fit the content; taken as {phase}")
        state = replace(state, phase=phase, since=now)
    return replace(state, problems=tuple(problems))
