"""What the webhook does not see needs no verdict."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.domain.backends import demand
from gpu_fraction.domain.demand import ZERO
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import Answer, decode
from tests.builders.pods import Raw, container, env, pod, typed
from tests.builders.strategies import (
    RESOURCES,
    asking_pods,
    hostile_annotations,
    hostile_containers,
    hostile_pods,
)
from tests.support import reaching
from tests.support.reviews import body, review, rewriting

DECIDER = Decider(rewriting())

lone_resources = st.builds(
    lambda name: pod(None, container(resources={name: "1"})), st.sampled_from(RESOURCES)
)
lone_variables = st.builds(
    lambda name: pod(None, container(env=env((name, "all")))),
    st.sampled_from(["NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "A"]),
)


@given(st.one_of(asking_pods(), hostile_pods(), lone_resources, lone_variables))
def test_a_pod_that_stays_away_would_pass_untouched(raw: Raw) -> None:
    """No patch, no refusal, no warning, and nothing that a quota would count."""
    asked = decode(body(review(raw)))
    if not reaching.mutated(typed(raw)):
        assert not DECIDER.mutate(asked).patch
    if not reaching.judged(typed(raw)):
        assert DECIDER.validate(asked) == Answer(allowed=True, audit={"decision": "allowed"})
        assert demand(typed(raw)) == ZERO


@given(
    hostile_pods(),
    st.one_of(st.none(), hostile_annotations()),
    st.lists(hostile_containers(), max_size=2),
)
def test_a_change_that_stays_away_would_pass(
    old: Raw, annotations: dict[str, str] | None, ephemeral: list[Raw]
) -> None:
    """Of annotations by every road, and of ephemeral containers by theirs."""
    new = copy.deepcopy(old)
    if annotations is not None:
        new["metadata"]["annotations"] = annotations
    road = None
    if ephemeral:
        road = "ephemeralcontainers"
        new["spec"].setdefault("ephemeralContainers", []).extend(ephemeral)
    if not reaching.changes(typed(old), typed(new), road):
        asked = decode(body(review(new, old, operation="UPDATE", subresource=road)))
        assert DECIDER.validate(asked) == Answer(allowed=True)
