"""An API server of pods and Bindings whose answers come when a state machine says so."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from gpu_fraction.domain import assignment, keys
from gpu_fraction.domain.assignment import Assignment
from gpu_fraction.domain.placement import Ask
from gpu_fraction.kube import errors
from gpu_fraction.scheduler.objects import Pod
from gpu_fraction.scheduler.wire import BindingArgs
from tests.builders import pods

Event = tuple[str, Pod | None]
"""A pod's name and the pod, or None once it is gone."""


@dataclass
class Stored:
    """A pod in the API server's storage."""

    name: str
    uid: str
    asks: tuple[Ask, ...]
    node: str = ""
    cards: Assignment = field(default_factory=dict)
    phase: str = "Pending"
    priority_class: str = ""

    def pod(self) -> Pod:
        """What the API server would send."""
        assigned = assignment.render(self.cards) if self.cards else ""
        return pods.scheduler_pod(
            self.name,
            *self.asks,
            uid=self.uid,
            node=self.node,
            assigned=assigned,
            phase=self.phase,
            spec={
                "schedulerName": keys.SCHEDULER,
                "priorityClassName": self.priority_class,
            },
        )


@dataclass(eq=False)
class Call:
    """A Binding on its way."""

    args: BindingArgs
    cards: Assignment
    answer: "asyncio.Future[None]"
    sent_s: float
    done: bool = False
    error: errors.KubeError | None = None


class Machine(Protocol):
    """What decides when a Binding takes effect and when its answer arrives."""

    loop: asyncio.AbstractEventLoop
    now_s: float
    storage: dict[str, Stored]
    calls: list[Call]


class Api:
    """The two calls, answered when the machine says so."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.down = False

    async def bind(self, args: BindingArgs, cards: Assignment) -> None:
        """Wait for the machine to carry it out and to answer."""
        call = Call(args, cards, self.machine.loop.create_future(), self.machine.now_s)
        self.machine.calls.append(call)
        await call.answer

    async def find(self, namespace: str, name: str) -> Pod | None:
        """A consistent read."""
        assert namespace == "team"
        if self.down:
            raise errors.TransportError("down", sent=False)
        stored = self.machine.storage.get(name)
        return stored.pod() if stored else None
