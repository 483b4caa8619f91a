"""The webhook with quotas: the pods it checks, the share it fills in, its answers."""

import asyncio
import base64
import json
from typing import Any

import jsonpatch
import pytest

from gpu_fraction.cli.webhook import quota_answer
from gpu_fraction.quota.decision import Outcome, Refusal
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.endpoints import NotReady
from gpu_fraction.webhook.review import AdmissionRequest, Answer, BadReview, decode
from gpu_fraction.webhook.validator import Validator
from tests.support.reviews import rewriting

OVER = Outcome(refusals=(Refusal("q", "exceeded GPU quota: q, ..."),))


def pod(**annotations: str) -> dict[str, Any]:
    """A pod's manifest."""
    return {
        "metadata": {"name": "p", "annotations": annotations},
        "spec": {"containers": [{"name": "main"}]},
    }


def create(
    body: dict[str, Any], *, dry_run: bool = False, group: str = "", resource: str = "pods"
) -> AdmissionRequest:
    """A review of its creation."""
    request = {
        "uid": "r1",
        "operation": "CREATE",
        "resource": {"group": group, "resource": resource},
        "namespace": "team",
        "object": body,
        "dryRun": dry_run,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return decode(json.dumps(review).encode())


class FixedQuota:
    """A quota that answers every pod alike."""

    def __init__(self, answer: Answer | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, bool]] = []

    async def reserve(self, request: AdmissionRequest) -> Answer:
        """Record the pod and answer."""
        assert json.loads(bytes(request.object))
        self.asked.append((request.namespace or "", bool(request.dry_run)))
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def validated(body: dict[str, Any], quota: FixedQuota) -> Answer:
    """The answer on a pod's creation."""
    answer = Validator(Decider(rewriting(gpu_memory_mib="80Gi")), quota.reserve)(create(body))
    return answer if isinstance(answer, Answer) else await answer


async def test_a_pod_over_quota_is_refused_with_the_quotas_message() -> None:
    """Nothing is added to the sentence."""
    answer = await validated(pod(), FixedQuota(quota_answer(OVER)))
    assert (answer.allowed, answer.message) == (False, "exceeded GPU quota: q, ...")
    assert answer.audit["decision"] == "over_budget"


async def test_warnings_and_notes_reach_the_answer() -> None:
    """The pod is admitted with them."""
    quota = Answer(allowed=True, warnings=("w",), audit={"quota": "reserved in q"})
    answer = await validated(pod(), FixedQuota(quota))
    assert answer.allowed
    assert "w" in answer.warnings
    assert answer.audit["quota"] == "reserved in q"


async def test_a_claim_is_checked_against_quotas_alone() -> None:
    """It has no annotations that could be wrong; other resources of the group are bad calls."""
    quota = FixedQuota(quota_answer(OVER))
    validator = Validator(Decider(rewriting()), quota.reserve)
    answer = validator(create({"spec": {}}, group="resource.k8s.io", resource="resourceclaims"))
    assert not isinstance(answer, Answer)
    assert (await answer).message == "exceeded GPU quota: q, ..."
    assert quota.asked == [("team", False)]
    with pytest.raises(BadReview):
        validator(create({}, group="resource.k8s.io", resource="resourceslices"))


async def test_an_invalid_pod_is_not_checked_against_quotas() -> None:
    """It would reserve amounts for nothing."""
    quota = FixedQuota(Answer(allowed=True))
    answer = await validated(pod(**{"gpu-fraction": "nonsense"}), quota)
    assert not answer.allowed
    assert quota.asked == []


async def test_a_quota_that_cannot_answer_is_passed_on() -> None:
    """The server turns it into 503 with Retry-After."""
    with pytest.raises(NotReady):
        await validated(pod(), FixedQuota(NotReady("later")))


def test_an_outcome_is_one_sentence() -> None:
    """Refusals of several quotas stand in one message, reservations in the audit log."""
    refused = Outcome(refusals=(Refusal("a", "one"), Refusal("b", "two")))
    assert quota_answer(refused).message == "one; two"
    admitted = Outcome(reservations={"a": {}, "b": {}}, warnings=(Refusal("a", "w"),))
    assert quota_answer(admitted) == Answer(
        allowed=True, warnings=("w",), audit={"quota": "reserved in a,b"}
    )


def mutated(body: dict[str, Any], default: str | None) -> tuple[dict[str, Any], Answer]:
    """The pod after mutation in a namespace with a default share."""
    decider = Decider(
        rewriting(gpu_memory_mib="80Gi"), default_fraction=lambda _namespace, _pod: default
    )
    answer = decider.mutate(create(body))
    patch = json.loads(base64.b64decode(answer.patch)) if answer.patch else []
    return jsonpatch.apply_patch(body, patch), answer


def test_a_pod_without_a_share_gets_the_namespaces_default() -> None:
    """It then holds what a pod holds whose author wrote that share."""
    wish = {"gpu-fraction.dev/gpu-model": "A100"}
    filled, answer = mutated(pod(**wish), "0.1")
    written, _ = mutated(pod(**wish, **{"gpu-fraction": "0.1"}), None)
    assert filled == written
    assert any("default" in warning for warning in answer.warnings)
    again, _ = mutated(filled, "0.1")
    assert again == filled


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"example.com/x": "y"},
        {"gpu-fraction": "0.5"},
        {"gpu-memory": "8Gi"},
        {"gpu-fraction.dev/container.main": "0.5"},
    ],
)
def test_the_default_is_for_pods_that_lack_a_share_only(annotations: dict[str, str]) -> None:
    """No GPU for a pod that wants none, no other share for one that names its own."""
    with_default, _ = mutated(pod(**annotations), "0.1")
    without, _ = mutated(pod(**annotations), None)
    assert with_default == without


def test_without_a_default_the_missing_share_is_a_refusal() -> None:
    """As before."""
    _, answer = mutated(pod(**{"gpu-fraction.dev/gpu-model": "A100"}), None)
    assert not answer.allowed
