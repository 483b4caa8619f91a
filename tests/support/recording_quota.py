"""Records the pods that /validate checks against quotas; reviews without GPU annotations."""

import json
from typing import Any

from gpu_fraction.settings.rewrite import RewriteSettings
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import AdmissionRequest, Answer, decode
from gpu_fraction.webhook.validator import Validator
from tests.support.reviews import recorded


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
    """Namespace and dry run of each pod that is checked against quotas during a validation."""
    asked: list[tuple[str, bool]] = []

    async def reserve(new: AdmissionRequest) -> Answer:
        assert new.object
        asked.append((new.namespace or "", bool(new.dry_run)))
        return Answer(allowed=True)

    answer = Validator(Decider(RewriteSettings()), reserve)(request)
    if not isinstance(answer, Answer):
        answer = await answer
    assert answer.allowed, answer.message
    return asked
