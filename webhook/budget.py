"""Budgets: another component's say in whether a valid pod may be stored."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from gpu_fraction.domain.pod import Pod
from gpu_fraction.webhook.decide import Decider, is_new_pod
from gpu_fraction.webhook.review import AdmissionRequest, Answer


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the budget says.

    Attributes:
        message: Why the pod is refused; empty where it is admitted.
        warnings: For the user.
        note: For the audit log; empty for none.
    """

    message: str = ""
    warnings: tuple[str, ...] = ()
    note: str = ""


class Budget(Protocol):
    """Decides whether a pod fits into its namespace's budgets, and keeps its place."""

    async def admit(self, namespace: str, pod: msgspec.Raw, *, dry_run: bool) -> Ruling:
        """The ruling on a new, valid pod.

        Raises:
            NotReady: no answer can be given now.
        """

    def default_fraction(self, namespace: str, pod: Pod) -> str | None:
        """The share for a pod that carries annotations of ours but no share."""


@dataclass(frozen=True, slots=True)
class Validator:
    """``/validate`` with a budget: the budget is asked last, about pods that are right."""

    decider: Decider
    budget: Budget

    def __call__(self, request: AdmissionRequest) -> Answer | Awaitable[Answer]:
        """The verdict; at once where no budget has a say."""
        answer = self.decider.validate(request)
        if not answer.allowed or not is_new_pod(request):
            return answer
        return self._within_budget(request, answer)

    async def _within_budget(self, request: AdmissionRequest, answer: Answer) -> Answer:
        ruling = await self.budget.admit(
            request.namespace or "", request.object, dry_run=bool(request.dry_run)
        )
        audit = {**answer.audit, "quota": ruling.note} if ruling.note else answer.audit
        if ruling.message:
            audit = {**audit, "decision": "over_budget"}
            return Answer(allowed=False, message=ruling.message, audit=audit)
        return Answer(allowed=True, warnings=(*answer.warnings, *ruling.warnings), audit=audit)
