"""The steps of a self-test, and what their measurements say about the promises."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from gpu_fraction.domain import keys
from gpu_fraction.domain.inventory import Card
from gpu_fraction.domain.units import MILLI
from gpu_fraction.selftest.inside import STEP_MIB, Measured

NAME: Final = "gpu-fraction-selftest"
"""Begins the names of the Jobs, and is their label ``app.kubernetes.io/name``."""

SECONDS: Final = 15.0
"""Time in which kernels run. Chosen: two containers that start seconds apart still overlap."""

LIFE_S: Final = 600
"""After that a Job is ended, and its remains go, whatever became of the command. Chosen: an image
is pulled in minutes."""

CONTEXT_MIB: Final = 1024
"""What a CUDA context itself may take of a limit (tests/gpu)."""

TOLERANCE: Final = 1.1
"""Of a share of compute. Chosen: a multiprocessor is 1 to 2 % of a card, and a second of launches
varies by some more."""


@dataclass(frozen=True, slots=True)
class Step:
    """Containers that run at one time, on one card.

    Attributes:
        name: Its name.
        shares: Thousandths of the card, one for each container.
        text: What it shows.
    """

    name: str
    shares: tuple[int, ...]
    text: str


STEPS: Final = (
    Step("whole", (1000,), "a whole card: the measure for the others"),
    Step("alone", (250,), "a quarter of an otherwise free card asks for more"),
    Step("together", (250, 500), "a quarter and a half at one time, both ask for more"),
)

Outcome = Literal["held", "exceeded", "not enforced", "not reached", "not measured"]
"""Held to the promise; more than promised though an engine enforces it; more than promised, which
this engine does not prevent; less than promised; nothing is known."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A container of a step, and what became of it.

    Attributes:
        step: The step.
        share_milli: Thousandths that it asked for.
        promise_mib: Memory that it was given, by ``assigned``; 0 where it was not.
        promise_core_milli: Compute likewise.
        measured: Its answer; None where it gave none.
        problem: Why it gave none.
    """

    step: str
    share_milli: int
    promise_mib: int = 0
    promise_core_milli: int = 0
    measured: Measured | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise against its measurement."""

    step: str
    what: str
    promise: str
    measured: str
    outcome: Outcome


def job(
    step: Step, share_milli: int, namespace: str, image: str, node: str, uuid: str, seconds: float
) -> dict[str, Any]:
    """A Job of one container with that share of that card.

    Args:
        step: The step.
        share_milli: Thousandths.
        namespace: Where.
        image: Ours, whose entry point is ``gpu-fraction``.
        node: Value of the node's label ``kubernetes.io/hostname``.
        uuid: The card.
        seconds: Time of the kernels.
    """
    labels = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "selftest"}
    locked = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{NAME}-{step.name}-{share_milli}-{secrets.token_hex(3)}",
            "namespace": namespace,
            "labels": labels,
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": LIFE_S,
            "ttlSecondsAfterFinished": LIFE_S,
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        keys.FRACTION: f"{share_milli / MILLI:g}",
                        keys.UUID: uuid,
                        keys.FRAMEWORK_ENV: "off",
                    },
                },
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "nodeSelector": {"kubernetes.io/hostname": node},
                    "containers": [
                        {
                            "name": "selftest",
                            "image": image,
                            "args": ["selftest", "--inside", f"--seconds={seconds:g}"],
                            "securityContext": locked,
                        }
                    ],
                },
            },
        },
    }


def judged(slices: Sequence[Slice], card: Card) -> Iterator[Verdict]:
    """What the measurements say about each promise; the inventory says what is enforced."""
    whole = next((s for s in slices if s.step == "whole"), None)
    base = rate(whole.measured.launches) if whole and whole.measured else 0.0
    together = [s for s in slices if s.step == "together" and s.measured]
    overlap = _overlap([s.measured.launches for s in together if s.measured])
    for one in slices:
        label = f"{one.share_milli / MILLI:g} of the card"
        if one.measured is None or one.measured.problem or one.measured.simulated:
            yield Verdict(one.step, label, _promise(one), _why_not(one), "not measured")
            continue
        found = one.measured
        yield Verdict(
            one.step,
            f"memory of {label}",
            f"{one.promise_mib} MiB",
            f"{found.got_mib} of {found.tried_mib} MiB tried",
            _memory(one.promise_mib, found.got_mib, enforced=card.enforces_memory),
        )
        if one.step == "whole" or not base:
            continue
        launches = found.launches
        if one in together and len(together) > 1:
            launches = {at: n for at, n in launches.items() if at in overlap}
        part = rate(launches) / base
        yield Verdict(
            one.step,
            f"compute of {label}",
            f"{one.promise_core_milli / MILLI:.1%}",
            f"{part:.1%} ({found.processors} processors)" if launches else "no common second",
            _compute(one, part, enforced=card.enforces_compute) if launches else "not measured",
        )


def _memory(promise_mib: int, got_mib: int, *, enforced: bool) -> Outcome:
    if got_mib > promise_mib + STEP_MIB:
        return "exceeded" if enforced else "not enforced"
    return "held" if got_mib + CONTEXT_MIB >= promise_mib else "not reached"


def _compute(one: Slice, part: float, *, enforced: bool) -> Outcome:
    promise = one.promise_core_milli / MILLI
    if part > promise * TOLERANCE:
        return "exceeded" if enforced else "not enforced"
    # Alone on a card, a slice of half a multiprocessor's size cannot be had.
    return "held" if part * TOLERANCE >= promise else "not reached"


def _promise(one: Slice) -> str:
    if not one.promise_mib:
        return "none: no card was assigned"
    return f"{one.promise_mib} MiB, {one.promise_core_milli / MILLI:.1%} of compute"


def _why_not(one: Slice) -> str:
    if one.measured is not None and one.measured.simulated:
        return "simulated: the card does not exist"
    return one.problem or (one.measured.problem if one.measured else "no answer")


def rate(launches: Mapping[int, int]) -> float:
    """Blocks a second, without the first and last second, which are not whole."""
    whole = [n for at, n in sorted(launches.items())][1:-1]
    return sum(whole) / len(whole) if whole else 0.0


def _overlap(found: Sequence[Mapping[int, int]]) -> set[int]:
    """The seconds in which all of them ran."""
    return set.intersection(*(set(one) for one in found)) if found else set()


def broken(verdicts: Sequence[Verdict]) -> bool:
    """Whether a promise was broken that an engine enforces, or could not be had."""
    return any(one.outcome in {"exceeded", "not reached", "not measured"} for one in verdicts)
