"""A snapshot of the Secret, the caBundles and the replicas, and the conditions of each phase."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from gpu_fraction.certs.actions import Notice, Plan, PublishBundle, WriteState
from gpu_fraction.certs.bundle import Bundle, Target
from gpu_fraction.certs.certificate import Certificate
from gpu_fraction.certs.leaf import Replica
from gpu_fraction.certs.lifetimes import CA_RENEW_AT, CHECK_S, Lifetimes
from gpu_fraction.certs.state import CaState, Phase
from gpu_fraction.kube.timestamps import time as api_time


class Snapshot:
    """The time, the Secret's content, the caBundles and the replicas, read together."""

    def __init__(
        self,
        now: datetime,
        state: CaState,
        targets: Sequence[Target],
        replicas: Sequence[Replica],
        lifetimes: Lifetimes,
        phase_seen_s: float,
    ) -> None:
        self.now = now
        self.phase_seen_s = phase_seen_s
        self.state = state
        self.targets = targets
        self.serving = [r for r in replicas if r.serves(now)]
        self.lifetimes = lifetimes
        self._live = [a.certificate for a in (state.current, state.next) if a is not None]
        self._known = {c.fingerprint for c in (*self._live, *state.previous)}

    def bundles(self) -> Iterable[Bundle]:
        """Every caBundle of every configuration."""
        return (bundle for target in self.targets for bundle in target.bundles)

    def _trusted(self) -> set[str]:
        """Fingerprints that any caBundle holds."""
        return {f for b in self.bundles() for f in b.fingerprints()}

    def elapsed_s(self) -> float:
        """Seconds since the phase was entered."""
        return (self.now - self.state.since).total_seconds()

    def enter(self, phase: Phase, notice: Notice, **changes: object) -> Plan:
        """The step into a phase."""
        state = replace(self.state, phase=phase, since=self.now, **changes)  # type: ignore[arg-type]
        # Otherwise the Secret grows without limit where rotations follow each other too quickly
        # for any CA to be retired.
        state = replace(state, previous=self._current_only(state.previous))
        return Plan(phase, (WriteState(state, notice),))

    def wait(self, until_s: float, *notices: Notice) -> Plan:
        """Nothing to do for ``until_s`` seconds, unless something changes."""
        wake_in_s = min(max(until_s, 0.0), CHECK_S)
        return Plan(self.state.phase, (), notices, wake_in_s)

    def something_works(self) -> bool:
        """True where a replica serves a leaf that a caBundle trusts.

        If not, every call fails already and waiting protects nothing.
        """
        trusted = self._trusted()
        return any(r.issuer in trusted for r in self.serving)

    def orphans(self) -> tuple[Certificate, ...]:
        """CAs of ours in caBundles that are not in the Secret, as after its deletion."""
        found = {
            c.fingerprint: c
            for b in self.bundles()
            for c in b.certificates
            if c.own and c.fingerprint not in self._known
        }
        return tuple(found.values())

    def settled_s(self) -> float:
        """Seconds for which the next CA has certainly been in every caBundle.

        At most the time that this process has measured, so no clock can shorten the wait.
        """
        return min(self.elapsed_s(), self.phase_seen_s)

    def stragglers(self) -> list[str]:
        """Replicas whose leaf works but is not of the current CA."""
        current = None if self.state.current is None else self.state.current.fingerprint
        trusted = self._trusted()
        return sorted(r.name for r in self.serving if r.issuer != current and r.issuer in trusted)

    def reintroduce(self) -> Plan | None:
        """Introduce the current CA again if replicas use another one, as after a restored backup.

        They may move to it only after it has been trusted everywhere for a while.
        """
        state = self.state
        if state.phase not in {Phase.STEADY, Phase.RETIRE} or self.rotation_reason():
            return None
        if not (stragglers := self.stragglers()):
            return None
        message = f"{len(stragglers)} replicas serve from another CA, first {stragglers[0]}"
        notice = Notice("RotationStarted", message, warning=True)
        reason = "replicas served from another CA than the current one"
        return self.enter(Phase.TRUST, notice, reason=reason, current=None, next=state.current)

    def retiring(self) -> bool:
        """True where the previous CAs must be dropped now."""
        # Not while a replica uses one of them: the next rotation, or reintroduce(), moves it
        # to another CA first.
        if self.state.phase is not Phase.RETIRE or self.stragglers():
            return False
        waited = self.elapsed_s() >= self.lifetimes.retire_s
        return waited or all(c.expired(self.now) for c in self.state.previous)

    def damage(self) -> Plan | None:
        """Publish the next CA again if a caBundle lost it while replicas depend on it."""
        if self.state.phase not in {Phase.SETTLE, Phase.SWITCH} or self.state.next is None:
            return None
        if all(b.trusts(self.state.next.fingerprint) for b in self.bundles()):
            return None
        message = "a caBundle lost the next CA: it is published again, then Settle starts again"
        return self.enter(Phase.TRUST, Notice("CaBundleDamaged", message, warning=True))

    def publish(self) -> tuple[PublishBundle, ...]:
        """The caBundles whose content is not the wanted one."""
        return tuple(
            PublishBundle(
                target,
                bundle.entry,
                wanted,
                frozenset(r.issuer for r in self.serving if bundle.trusts(r.issuer)),
            )
            for target in self.targets
            for bundle in target.bundles
            if (wanted := self._wanted(bundle))
            and {c.fingerprint for c in wanted} != bundle.fingerprints()
        )

    def _wanted(self, bundle: Bundle) -> tuple[Certificate, ...]:
        """Ours first, then the certificates that others put there."""
        ours = self._live if self.retiring() else [*self._live, *self.state.previous]
        kept = [c for c in bundle.certificates if c.fingerprint not in self._known]
        return self._current_only((*ours, *kept))

    def _current_only(self, certificates: Iterable[Certificate]) -> tuple[Certificate, ...]:
        """Each certificate once, without expired ones that no replica serves from."""
        served = {r.issuer for r in self.serving}
        skew = timedelta(seconds=self.lifetimes.backdate_s)
        unique = {
            c.fingerprint: c
            for c in certificates
            if not c.expired(self.now - skew) or c.fingerprint in served
        }
        return tuple(unique.values())

    def clock_behind(self) -> Plan | None:
        """Stop if a CA is not valid yet: our clock is behind, or the one of its maker was ahead.

        A clock that is behind makes certificates that are expired for others, so none is made. A
        person who requests a rotation confirms that the other clock was wrong: then that CA is
        dropped.
        """
        ahead = [c for c in self._live if c.not_before > self.now]
        seen = () if self._live else (c for b in self.bundles() for c in b.certificates if c.own)
        latest = max((c.not_before for c in (*ahead, *seen)), default=self.now)
        if latest <= self.now:
            return None
        if self.state.rotate_ca:
            return self._give_up(ahead) if ahead else None
        message = (
            f"the clock says {api_time(self.now)}, before a CA of ours is valid"
            f" ({api_time(latest)}): nothing is rotated"
        )
        return self.wait(CHECK_S, Notice("ClockBehind", message, warning=True))

    def _give_up(self, ahead: Sequence[Certificate]) -> Plan:
        kept = [
            a if a is not None and a.certificate not in ahead else None
            for a in (self.state.current, self.state.next)
        ]
        message = "a rotation was requested: a CA that is not valid yet is dropped"
        return self.enter(
            Phase.STAGE,
            Notice("RotationStarted", message, warning=True),
            reason="a rotation was requested",
            current=kept[0],
            next=kept[1],
            previous=(*self.state.previous, *ahead),
        )

    def notices(self) -> tuple[Notice, ...]:
        """Warnings about a CA of which little life is left."""
        messages = [
            certificate.expiry_warning(f"the {role} CA", self.now, self.lifetimes.backdate_s)
            for role, certificate in self.state.roles()
            if role != "previous"
        ]
        return tuple(Notice("CertificateExpiring", m, warning=True) for m in messages if m)

    def rotation_reason(self) -> str:
        """Why a new CA is needed; empty while it is not."""
        if self.state.current is None:
            return "there is no usable CA"
        certificate = self.state.current.certificate
        if self.state.rotate_ca:
            return "a rotation was requested"
        if certificate.expired(self.now):
            return "the CA has expired"
        if self.now >= self.lifetimes.ca_due(certificate):
            return f"{CA_RENEW_AT:.0%} of the CA's life is over"
        return ""

    def worn_out(self) -> bool:
        """True where the next CA is itself due for renewal, after a rotation that hung."""
        staged = self.state.next
        return staged is not None and self.now >= self.lifetimes.ca_due(staged.certificate)

    def until_rotation_s(self) -> float:
        """Seconds until the successor of the current CA is made."""
        if self.state.current is None:
            return 0.0
        return (self.lifetimes.ca_due(self.state.current.certificate) - self.now).total_seconds()
