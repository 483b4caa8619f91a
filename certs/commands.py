"""``gpu-fraction certs``: shows the state of the certificates and requests new ones."""

import json
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime

from gpu_fraction.certs.actions import Plan, PublishBundle
from gpu_fraction.certs.bundle import Target
from gpu_fraction.certs.certificate import Certificate
from gpu_fraction.certs.injection import Injector
from gpu_fraction.certs.leaf import Replica
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.planner import plan
from gpu_fraction.certs.replica_leases import ReplicaLister
from gpu_fraction.certs.secret import SecretStore
from gpu_fraction.certs.settings import Installation
from gpu_fraction.certs.state import CaState
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.timestamps import time as api_time
from gpu_fraction.kube.timestamps import utc_now


async def status(
    client: Client, installation: Installation, lifetimes: Lifetimes, *, as_json: bool = False
) -> str:
    """The CA and its rotation, every caBundle, every replica's leaf, and the next step.

    Args:
        client: The API server's client.
        installation: Whose certificates.
        lifetimes: The lifetimes by which the next step is chosen.
        as_json: For programs instead of people.

    Raises:
        KubeError: something could not be read.
    """
    now = utc_now()
    held = await SecretStore(client, installation).read(now)
    targets = await Injector(client, installation).read()
    replicas = await ReplicaLister(client, installation, lifetimes).read()
    if as_json:
        body = described(now, held.state, targets, replicas, lifetimes)
        return json.dumps(body, indent=2)
    title = f"CA in Secret {installation.namespace}/{installation.secret}"
    return render_status(title, now, held.state, targets, replicas, lifetimes)


async def rotate(client: Client, installation: Installation, *, ca: bool) -> str:
    """Request a new CA, or new leaves of the current one.

    Returns:
        A message about the next steps.

    Raises:
        NotFoundError: there is no CA Secret yet.
        KubeError: the request could not be stored.
    """
    token = secrets.token_hex(4)
    await SecretStore(client, installation).request(token, ca=ca)
    if ca:
        return (
            f"A CA rotation is requested ({token}). The lease holder begins as soon as no other"
            " one is in progress; `gpu-fraction certs status` shows its phases."
        )
    return f"New leaves are requested ({token}). Every replica signs one within seconds."


def render_status(
    title: str,
    now: datetime,
    state: CaState | None,
    targets: Sequence[Target],
    replicas: Sequence[Replica],
    lifetimes: Lifetimes,
) -> str:
    """The text of ``status``."""
    names = {} if state is None else {c.fingerprint: role for role, c in state.roles()}
    lines = [title, *_state_lines(now, state, lifetimes), "", "Trusted by"]
    for target in sorted(targets, key=lambda t: (t.kind, t.name)):
        lines.append(f"  {target.kind} {target.name}")
        lines += [
            f"    {bundle.entry}: "
            + ("unreadable" if not bundle.readable else _listed(bundle.certificates, names))
            for bundle in target.bundles
        ]
    if not targets:
        lines.append("  no webhook configuration exists")
    lines += ["", "Served by"]
    lines += [_replica_line(now, replica, names) for replica in replicas]
    if not replicas:
        lines.append("  no replica")
    made = plan(now, state, targets, replicas, lifetimes, 0.0)
    lines += ["", "Next", f"  {_next(made)}"]
    lines += [f"  {'warning: ' if n.warning else ''}{n.message}" for n in made.notices]
    return "\n".join(lines) + "\n"


def described(
    now: datetime,
    state: CaState | None,
    targets: Sequence[Target],
    replicas: Sequence[Replica],
    lifetimes: Lifetimes,
) -> dict[str, object]:
    """What ``status`` tells, for programs; ``ca`` is None where there is none."""
    names = {} if state is None else {c.fingerprint: role for role, c in state.roles()}
    made = plan(now, state, targets, replicas, lifetimes, 0.0)

    def of(one: Certificate) -> dict[str, object]:
        role = names.get(one.fingerprint, "unknown" if one.own else "foreign")
        return {
            "fingerprint": one.fingerprint,
            "role": role,
            "subject": one.subject,
            "notAfter": api_time(one.not_after),
        }

    return {
        "ca": state
        and {
            "phase": state.phase,
            "since": api_time(state.since),
            "reason": state.reason,
            "certificates": [of(one) for _, one in state.roles()],
            "problems": list(state.problems),
        },
        "webhookConfigurations": [
            {
                "kind": target.kind,
                "name": target.name,
                "caBundles": [
                    {
                        "entry": bundle.entry,
                        "readable": bundle.readable,
                        "certificates": [of(one) for one in bundle.certificates],
                    }
                    for bundle in target.bundles
                ],
            }
            for target in sorted(targets, key=lambda t: (t.kind, t.name))
        ],
        "replicas": [
            {
                "name": one.name,
                "issuer": one.issuer or None,
                "issuerRole": names.get(one.issuer, "unknown") if one.issuer else None,
                "notAfter": one.leaf_not_after and api_time(one.leaf_not_after),
                "serves": one.serves(now),
            }
            for one in replicas
        ],
        "next": _next(made),
        "notices": [{"warning": one.warning, "message": one.message} for one in made.notices],
    }


def _state_lines(now: datetime, state: CaState | None, lifetimes: Lifetimes) -> list[str]:
    if state is None:
        return ["  does not exist"]
    why = f" ({state.reason})" if state.reason else ""
    seconds = (now - state.since).total_seconds()
    lines = [f"  phase     {state.phase} since {api_time(state.since)}, {_span(seconds)} ago{why}"]
    for role, certificate in state.roles():
        left = certificate.life_left(now, lifetimes.backdate_s)
        lines.append(
            f"  {role:<9} {certificate.fingerprint[:12]} {certificate.subject}, until"
            f" {api_time(certificate.not_after)}, {left:.0%} of its life left"
        )
    lines += [f"  problem   {problem}" for problem in state.problems]
    return lines


def _listed(certificates: Iterable[Certificate], names: dict[str, str]) -> str:
    words = [
        f"{c.fingerprint[:12]} ({names.get(c.fingerprint, 'unknown' if c.own else 'foreign')},"
        f" until {api_time(c.not_after)})"
        for c in certificates
    ]
    return ", ".join(words) or "nothing: every call fails"


def _replica_line(now: datetime, replica: Replica, names: dict[str, str]) -> str:
    if replica.leaf_not_after is None:
        return f"  {replica.name}: nothing yet"
    issuer = names.get(replica.issuer, "unknown")
    ended = "" if replica.serves(now) else ", EXPIRED"
    return (
        f"  {replica.name}: a leaf of {replica.issuer[:12]} ({issuer}),"
        f" until {api_time(replica.leaf_not_after)}{ended}"
    )


def _next(made: Plan) -> str:
    if not made.actions:
        return f"nothing to do; the next check is within {_span(made.wake_in_s)}"
    first = made.actions[0]
    if isinstance(first, PublishBundle):
        return f"publish the caBundle of {first.target.kind} {first.target.name}"
    if first.new_ca:
        return "make the next CA"
    return f"enter {first.state.phase}: {first.notice.message}"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
