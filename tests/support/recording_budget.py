"""A budget that records what the webhook asks it, and recorded reviews without GPU annotations."""

import json
from typing import Any

import msgspec

from gpu_fraction.settings.rewrite import RewriteSettings
from gpu_fraction.webhook.budget import Ruling, Validator
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import AdmissionRequest, Answer, decode
from tests.support.reviews import recorded


class CountingBudget:
    """A budget that admits every pod and records the requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []

    async def admit(self, namespace: str, pod: msgspec.Raw, *, dry_run: bool) -> Ruling:
        """See ``webhook.budget.Budget``."""
        assert pod
        self.asked.append((namespace, dry_run))
        return Ruling()

    def default_fraction(self, _namespace: str, _pod: Any) -> str | None:
        """See ``webhook.budget.Budget``."""
        return None


def review(name: str, **changes: Any) -> AdmissionRequest:
    """A recorded review, with some of its request's fields changed.

    The recorded pods were not mutated, so their GPU annotations are left out.
    """
    body = recorded(name)
    body["request"].update(changes)
    for field in ("object", "oldObject"):
        metadata = (body["request"].get(field) or {}).get("metadata", {})
        kept = {k: v for k, v in metadata.get("annotations", {}).items() if "gpu-" not in k}
        metadata["annotations"] = kept
    return decode(json.dumps(body).encode())


async def ask(request: AdmissionRequest) -> list[tuple[str, bool]]:
    """Namespace and dry run of each request to the budget while a request is validated."""
    budget = CountingBudget()
    settings = RewriteSettings()
    validator = Validator(Decider(settings), budget)
    answer = validator(request)
    if not isinstance(answer, Answer):
        answer = await answer
    assert answer.allowed, answer.message
    return budget.asked
