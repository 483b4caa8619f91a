"""An answer from memory is the answer that the pod would get without it."""

import copy
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from gpu_fraction.domain import keys
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import Answer, BadReview, decode
from tests.builders.pods import Raw, pod
from tests.builders.strategies import asking_pods, hostile_pods
from tests.support.reviews import body, review, rewriting

SYSTEM_USER = "system:serviceaccount:gpu-fraction-system:scheduler"
CHANGES: list[tuple[tuple[str, ...], Any]] = [
    (("metadata", "labels"), {"team": "a"}),
    (("metadata", "annotations", keys.ASSIGNED), "x"),
    (("metadata", "annotations", "hami.io/gpu-scheduler-policy"), "spread"),
    (("metadata", "annotations", "note"), "n"),
    (("metadata", "annotations", keys.BACKEND), "hami"),
    (("metadata", "annotations", keys.BACKEND), "nvidia"),
    (("metadata", "name"), "other"),
    (("spec", "schedulerName"), "kai-scheduler"),
    (("spec", "nodeName"), "n1"),
    (("spec", "runtimeClassName"), "nvidia"),
    (("spec", "priorityClassName"), "research"),
    (("spec", "nodeSelector"), {"pool": "gpu"}),
    (("spec", "tolerations"), [{"key": "nvidia.com/gpu", "operator": "Exists"}]),
    (("spec", "volumes"), [{"name": "v", "hostPath": {"path": "/dev"}}]),
    (("spec", "securityContext"), {"runAsUser": 0}),
    (("spec", "resourceClaims"), [{"name": "gpu", "resourceClaimName": "gpu"}]),
    (("spec", "hostPID"), True),
    (("spec", "containers"), [{"name": "main", "securityContext": {"privileged": True}}]),
]
"""Fields in which two pods of one template may differ."""


@st.composite
def variants(draw: st.DrawFn) -> list[Raw]:
    """A pod, and pods that differ from it in a few fields."""
    first = draw(st.one_of(asking_pods(), hostile_pods()))
    found = [first]
    for path, value in draw(st.lists(st.sampled_from(CHANGES), max_size=4)):
        changed = copy.deepcopy(draw(st.sampled_from(found)))
        place = changed
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = value
        found.append(changed)
    return found


calls = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from(["mutate", "validate"]),
        st.sampled_from(["admin", SYSTEM_USER]),
        st.sampled_from(["team-a", "hami", "default-share"]),
    ),
    min_size=2,
    max_size=8,
)
ASSIGNED = pod({"gpu-fraction": "1", keys.ASSIGNED: "x"})


def decider() -> Decider:
    """A webhook that has seen no pod yet."""
    return Decider(
        rewriting(namespace_backends="native,hami", allow_pod_backend="true"),
        frozenset({SYSTEM_USER}),
        backend_label=lambda namespace: "hami" if namespace == "hami" else None,
        default_fraction=lambda namespace, _pod: "0.1" if namespace == "default-share" else None,
    )


def answer(by: Decider, raw: Raw, path: str, user: str, namespace: str) -> Answer | str:
    """The answer, or what is wrong with the call."""
    try:
        request = decode(body(review(raw, user=user, namespace=namespace)))
        return by.mutate(request) if path == "mutate" else by.validate(request)
    except BadReview as e:
        return str(e)


@given(variants(), calls)
@example([ASSIGNED], [(0, "mutate", SYSTEM_USER, "team-a"), (0, "mutate", "admin", "team-a")])
@example([ASSIGNED], [(0, "validate", SYSTEM_USER, "team-a"), (0, "validate", "admin", "team-a")])
def test_an_answer_from_memory_is_the_answer_without_it(
    pods: list[Raw], asked: list[tuple[int, str, str, str]]
) -> None:
    """Whoever asks, about whichever pod, on whichever path and in whichever namespace."""
    busy = decider()
    for at, path, user, namespace in asked:
        raw = pods[at % len(pods)]
        alone = answer(decider(), raw, path, user, namespace)
        assert answer(busy, raw, path, user, namespace) == alone
