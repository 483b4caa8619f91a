"""``/validate`` in a cluster: a pod's own rules first, then the namespace's GPUQuotas.

Claims have no rules of ours; they reach the webhook only with ``deploy/claims-charge``.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from gpu_fraction.webhook.decide import Decider, is_new_claim, is_new_pod
from gpu_fraction.webhook.review import AdmissionRequest, Answer

Reserve = Callable[[AdmissionRequest], Awaitable[Answer]]
"""Checks a new, valid pod or claim against the quotas of its namespace and reserves its amounts.

Raises ``NotReady`` where no answer is possible now.
"""


@dataclass(frozen=True, slots=True)
class Validator:
    """Answers ``/validate``; valid pods, and claims, are checked against quotas."""

    decider: Decider
    reserve: Reserve

    def __call__(self, request: AdmissionRequest) -> Answer | Awaitable[Answer]:
        """The answer; an awaitable only where quotas have to be checked."""
        if is_new_claim(request):
            return self.reserve(request)
        answer = self.decider.validate(request)
        if not answer.allowed or not is_new_pod(request):
            return answer
        return self._with_quota(request, answer)

    async def _with_quota(self, request: AdmissionRequest, answer: Answer) -> Answer:
        quota = await self.reserve(request)
        return msgspec.structs.replace(
            quota,
            warnings=(*answer.warnings, *quota.warnings),
            audit={**answer.audit, **quota.audit},
        )
