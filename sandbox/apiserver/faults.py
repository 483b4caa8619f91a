"""Faults on demand: which requests go wrong, and how."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer at once with a Status object instead of doing anything."""

    code: int
    message: str = ""
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """Answer at once with a body that is no Status object, as a proxy does."""

    code: int
    body: str = "<html>upstream fault</html>"


@dataclass(frozen=True, slots=True)
class Hang:
    """Take the request and never answer."""


@dataclass(frozen=True, slots=True)
class Slow:
    """Wait before doing what was asked."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Late:
    """Do what was asked at once, and wait before answering."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Reset:
    """Break the connection instead of answering.

    Attributes:
        done: True: after carrying the request out, so that only the answer is lost.
    """

    done: bool = False


@dataclass(frozen=True, slots=True)
class DropWatch:
    """Break a watch after so many events."""

    after_events: int = 0


@dataclass(frozen=True, slots=True)
class DelayWatch:
    """Deliver each event of a watch late, in order."""

    delay_s: float


Action = Answer | Text | Hang | Slow | Late | Reset | DropWatch | DelayWatch


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for, as far as rules look at it."""

    verb: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(slots=True)
class Fault:
    """A rule. Empty fields match everything.

    Attributes:
        action: what goes wrong.
        verb: get, list, watch, create, update, patch, delete.
        resource: ``plural.group``.
        subresource: such as ``status``; ``-`` for requests without one.
        namespace: of the request.
        name: of the object.
        skip: matching requests to let pass first.
        times: matching requests to spoil; None for all.
    """

    action: Action
    verb: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    skip: int = 0
    times: int | None = 1

    def matches(self, call: Call) -> bool:
        """Whether the rule is about this request."""
        return (
            self.verb in {"", call.verb}
            and self.resource in {"", call.resource}
            and self.subresource in {"", call.subresource or "-"}
            and self.namespace in {"", call.namespace}
            and self.name in {"", call.name}
        )


class Faults:
    """The rules in force; the first that matches and is not used up decides."""

    def __init__(self) -> None:
        """No rules."""
        self._rules: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Put a rule in force."""
        self._rules.append(fault)
        return fault

    def clear(self) -> None:
        """Take all rules out of force."""
        self._rules.clear()

    def strike(self, call: Call) -> Action | None:
        """What goes wrong with this request; counts it."""
        for rule in self._rules:
            if not rule.matches(call):
                continue
            if rule.skip:
                rule.skip -= 1
            elif rule.times is None:
                return rule.action
            elif rule.times > 0:
                rule.times -= 1
                return rule.action
        return None
