"""The quota's verdict in the webhook's terms."""

from dataclasses import dataclass

import msgspec

from gpu_fraction.domain.pod import Pod
from gpu_fraction.kube.errors import MalformedAnswerError
from quota.decision import Outcome
from quota.errors import NotReadyError
from quota.service import AdmissionService
from webhook.app import NotReady
from webhook.budget import Ruling
from webhook.review import BadReview

__all__ = ["QuotaBudget", "ruling"]


@dataclass(frozen=True, slots=True)
class QuotaBudget:
    """``webhook.budget.Budget`` on GPUQuotas."""

    quotas: AdmissionService

    async def admit(self, namespace: str, pod: msgspec.Raw, *, dry_run: bool) -> Ruling:
        """See ``Budget``."""
        try:
            outcome = await self.quotas.admit(namespace, bytes(pod), dry_run=dry_run)
        except NotReadyError as e:
            raise NotReady(str(e), e.retry_after_s) from e
        except MalformedAnswerError as e:
            raise BadReview(f"request.object is not a Pod: {e}") from e
        return ruling(outcome)

    def default_fraction(self, namespace: str, pod: Pod) -> str | None:
        """See ``Budget``."""
        return self.quotas.default_fraction(namespace, pod.spec.priority_class_name)


def ruling(outcome: Outcome) -> Ruling:
    """The outcome as the webhook answers it; every refusal is one sentence."""
    promised = ",".join(promise.quota for promise in outcome.promises)
    return Ruling(
        message="; ".join(refusal.message for refusal in outcome.refusals),
        warnings=tuple(refusal.message for refusal in outcome.warnings),
        note=f"reserved in {promised}" if promised else "",
    )
