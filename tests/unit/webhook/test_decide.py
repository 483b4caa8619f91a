"""The verdict on reviews that no cluster happened to send."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.settings import rewrite
from gpu_fraction.settings.rewrite import RewriteSettings
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import Answer, BadReview, decode, encode
from tests.builders.pods import Raw, container, env, pod
from tests.support.reviews import body, changed, review, rewriting

SYSTEM = "system:serviceaccount:gpu-fraction-system:gpu-fraction-scheduler"
QUARTER = {"gpu-fraction": "0.25"}
GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
TOY = Path(__file__).parents[2] / "data/toy/gpu_fraction/domain/backends/toy.py"


def decider(**settings: str) -> Decider:
    """With one system user and a namespace that chose HAMi."""
    labels = {"team-a": None, "team-h": "hami", "team-x": "nonsense", "team-n": "nvidia"}
    return Decider(rewriting(**settings), frozenset({SYSTEM}), labels.get)


def mutate(raw: Raw, **settings: str) -> Answer:
    """The answer to a mutating review."""
    return decider(**settings).mutate(decode(body(raw)))


def validate(raw: Raw, **settings: str) -> Answer:
    """The answer to a validating review."""
    return decider(**settings).validate(decode(body(raw)))


# What is not a new pod.


@pytest.mark.parametrize(
    ("operation", "subresource"),
    [
        ("DELETE", None),
        ("CONNECT", "exec"),
        ("CREATE", "eviction"),
        ("CREATE", "ephemeralcontainers"),
        ("UPDATE", "status"),
    ],
)
def test_only_new_pods_are_mutated(operation: str, subresource: str | None) -> None:
    """Whatever the object says; everything else passes through unread."""
    raw = review({"not": "a pod"}, operation=operation, subresource=subresource)
    assert mutate(raw) == Answer(allowed=True)


@pytest.mark.parametrize(
    ("operation", "subresource"),
    [("DELETE", None), ("CONNECT", "exec"), ("CREATE", "eviction")],
)
def test_what_cannot_change_a_pod_is_not_judged(operation: str, subresource: str | None) -> None:
    """Deletes and evictions above all: a stuck webhook must not keep pods alive."""
    raw = review(None, pod(QUARTER), operation=operation, subresource=subresource)
    assert validate(raw) == Answer(allowed=True)


@pytest.mark.parametrize(
    "resource",
    [
        {"group": "apps", "resource": "deployments"},
        {"group": "", "resource": "nodes"},
        {"group": "metrics.k8s.io", "resource": "pods"},
        {},
    ],
)
def test_what_was_never_subscribed_to_is_a_bad_call(resource: dict[str, str]) -> None:
    """A wrong webhook configuration must be seen, not guessed around."""
    raw = review(pod())
    raw["request"]["resource"] = resource
    for decide in (mutate, validate):
        with pytest.raises(BadReview, match="for pods and bindings only"):
            decide(raw)


def test_a_bad_call_is_told_in_few_words() -> None:
    """Anybody may call, so a name of megabytes must not fill answers and logs."""
    raw = review(pod(), resource="x" * 100_000)
    with pytest.raises(BadReview) as bad:
        mutate(raw)
    assert len(str(bad.value)) < 1000


@pytest.mark.parametrize(
    ("new", "old", "operation"),
    [
        (None, None, "CREATE"),
        ({"spec": {"containers": "none"}}, None, "CREATE"),
        (pod(), None, "UPDATE"),
        (None, pod(), "UPDATE"),
        (pod(), {"metadata": []}, "UPDATE"),
    ],
)
def test_an_object_that_is_no_pod_is_a_bad_call(
    new: Raw | None, old: Raw | None, operation: str
) -> None:
    """The API server never sends it."""
    with pytest.raises(BadReview, match="is not a Pod"):
        validate(review(new, old, operation=operation))


# New pods.


def test_a_refusal() -> None:
    """Said to the user, and to the audit log which backend would have had it."""
    assert mutate(review(pod({"gpu-fraction": "7.5"}))) == Answer(
        allowed=False,
        message=(
            'metadata.annotations[gpu-fraction]: "7.5" is more than one GPU but not a whole '
            "number; allowed: a share of one GPU from 0.001 to 1 (0.25 or 25%), or a whole number "
            "of GPUs (1, 2, 4)"
        ),
        audit={"decision": "refused", "backend": "native"},
    )


def test_a_refusal_counts_what_it_leaves_out() -> None:
    """Five problems are shown, so that the first is read."""
    raw = pod({f"gpu-{i}": "" for i in range(8)})
    message = mutate(review(raw)).message
    assert message.count("not a known annotation") == 5
    assert message.endswith("; and 3 more")


MANY = 20_000


def _containers(*, of: str) -> list[Raw]:
    return [container(f"{of}{i}") for i in range(MANY)]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(pod({f"gpu-fraction{i}": "" for i in range(MANY)}), id="unknown-keys"),
        pytest.param(
            pod(
                {f"{keys.CONTAINER_PREFIX}trainer{i}x": "1" for i in range(MANY)},
                *_containers(of="trainer"),
            ),
            id="keys-of-no-container",
        ),
        pytest.param(
            pod(
                {f"{keys.CONTAINER_PREFIX}trainer{i}x": "1" for i in range(60)},
                *_containers(of="trainer"),
            ),
            id="few-keys-of-no-container",
        ),
        pytest.param(
            pod(
                {f"{keys.CONTAINER_PREFIX}trainer{i}": "1" for i in range(MANY)},
                *_containers(of="trainer"),
            ),
            id="keys-of-containers",
        ),
        pytest.param(pod({keys.MEMORY: "1" * 100 * MANY + "x"}), id="a-long-amount"),
        pytest.param(
            pod(None, container("main", {f"{keys.PREFIX}slots{i}": "1" for i in range(MANY)})),
            id="resources-of-no-node",
        ),
    ],
)
def test_a_body_full_of_one_thing_is_answered_in_few_words(raw: Raw) -> None:
    """One request of a tenant's must not hold up the webhook, whatever it is full of."""
    for answer in (mutate(review(raw)), validate(review(raw)), validate(review(raw, pod()))):
        assert len(encode("u-1", answer)) < 4000


@pytest.mark.parametrize(
    ("namespace", "allowed", "backend"),
    [
        ("team-a", "", "native"),
        ("team-h", "", "native"),
        ("team-h", "hami", "hami"),
        ("team-h", "nvidia", "native"),
        ("team-x", "hami,nvidia", "native"),
        ("unheard-of", "hami", "native"),
        (None, "hami", "native"),
    ],
)
def test_a_namespace_chooses_among_the_allowed_backends(
    namespace: str | None, allowed: str, backend: str
) -> None:
    """Any other label counts as none: the default, never an error for its users."""
    raw = review(pod(QUARTER), namespace=namespace)
    answer = mutate(raw, namespace_backends=allowed)
    assert answer.audit["backend"] == backend


def test_validation_uses_the_same_backend_as_mutation() -> None:
    """Else a namespace's choice would fail its own pods."""
    raw = review(pod({"gpu-fraction": "1"}), namespace="team-n")
    answer = validate(raw, namespace_backends="nvidia")
    assert answer.audit == {"decision": "refused", "backend": "nvidia"}
    assert "nvidia.com~1gpu" in answer.message or "resources" in answer.message


def test_the_audit_annotation_is_bounded() -> None:
    """Whatever number of containers a tenant writes."""
    names = [f"container-{i:03d}-{'x' * 40}" for i in range(40)]
    raw = pod(
        {keys.CONTAINER_PREFIX + name: "0.5" for name in names},
        *(container(name) for name in names),
    )
    assert len(mutate(review(raw)).audit["fraction"]) == 256


@pytest.mark.parametrize(
    ("annotations", "fraction"),
    [
        ({"gpu-fraction": "2"}, "main=2x1"),
        ({"gpu-memory": "4Gi"}, "main=1x4096Mi"),
        ({"gpu-memory": "4Gi", "gpu-cores": "0.5"}, "main=1x0.5"),
        (
            {"gpu-fraction": "0.5", "gpu-fraction.dev/container.side": "25%"},
            "main=1x0.5,side=1x0.25",
        ),
    ],
)
def test_the_audit_annotation_says_what_was_asked(
    annotations: dict[str, str], fraction: str
) -> None:
    """Cards times share, or amount where no share was asked."""
    raw = pod(annotations, container("main"), container("side"))
    assert mutate(review(raw)).audit["fraction"] == fraction


def test_a_pod_of_kai_is_kept() -> None:
    """With a warning, and without a word about a backend."""
    answer = mutate(review(pod(QUARTER, schedulerName="kai-scheduler")))
    assert (answer.allowed, answer.patch) == (True, "")
    assert answer.audit == {"decision": "kept"}
    assert answer.warnings == ("gpu-fraction does not change pods that kai-scheduler schedules",)


@pytest.mark.parametrize("backend", ["native", "hami", "nvidia"])
def test_an_answer_does_not_depend_on_the_pods_before(backend: str) -> None:
    """Each pod is judged by what it holds, also by what it holds for the backend alone."""
    theirs = "hami.io/gpu-scheduler-policy"
    pods = [
        pod({"gpu-fraction": "1"}),
        pod({"gpu-fraction": "1", theirs: "spread"}),
        pod({"gpu-fraction": "1", theirs: "binpack"}),
        pod({"gpu-fraction": "1", "nvidia.com/use-gputype": "T4"}),
        pod({"gpu-fraction": "1"}, container("main", env=env(("GPU_FRACTION", "mine")))),
        pod({"gpu-fraction": "1"}, container("main", {"cpu": "1"})),
        pod({"gpu-fraction": "1"}, tolerations=[GPU_TAINT]),
        pod({}),
        pod(None),
    ]
    alone = [mutate(review(raw), backend=backend) for raw in pods]
    for order in (pods, pods[::-1]):
        busy = decider(backend=backend)
        together = [busy.mutate(decode(body(review(raw)))) for raw in order]
        assert together == (alone if order is pods else alone[::-1])


def test_an_answer_depends_on_labels_and_claims_that_the_backend_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the pod has already is not set again, and what contradicts is refused."""
    monkeypatch.setitem(rewrite.BACKENDS, "toy", runpy.run_path(str(TOY))["STACK"])
    busy = Decider(RewriteSettings(backend="toy"))
    expected = {"default": True, "mine": False}
    patches = set()
    for queue in (None, "default", "mine"):
        raw = pod(QUARTER)
        if queue is not None:
            raw["metadata"]["labels"] = {"toy.example/queue": queue}
        answer = busy.mutate(decode(body(review(raw))))
        assert answer.allowed is expected.get(queue or "", True)
        patches.add(answer.patch)
    assert len(patches) == 3


# The vendors' own pods.

PRIVILEGED = {"privileged": True}
CHOSEN = env(("NVIDIA_VISIBLE_DEVICES", "all"))


@pytest.mark.parametrize("backend", ["native", "hami", "nvidia"])
@pytest.mark.parametrize(
    ("namespace", "raw"),
    [
        (
            "nvidia-device-plugin",
            pod(None, container("ctr", env=CHOSEN, securityContext=PRIVILEGED)),
        ),
        (
            "gpu-operator",
            pod(None, init=[container("toolkit", env=CHOSEN, securityContext=PRIVILEGED)]),
        ),
    ],
)
def test_the_vendors_own_pods_start(backend: str, namespace: str, raw: Raw) -> None:
    """On every backend, and wherever they are installed."""
    asked = review(raw, namespace=namespace)
    assert not mutate(asked, backend=backend).patch
    assert validate(asked, backend=backend).allowed


@pytest.mark.parametrize("namespace", ["team-a", "gpu-operator"])
def test_a_namespaces_name_makes_no_pod_a_vendors(namespace: str) -> None:
    """Whoever may make namespaces may call one so."""
    told = validate(review(pod(None, container("ctr", env=CHOSEN)), namespace=namespace))
    assert told.message.startswith("spec.containers[0].env[0]: NVIDIA_VISIBLE_DEVICES may not")


# System annotations, by every road.


def assigned(value: str = "x") -> dict[str, str]:
    """The assignment, beside what the pod asked."""
    return {**QUARTER, keys.ASSIGNED: value}


ROADS: list[Any] = [
    pytest.param(review(pod({keys.ASSIGNED: "x"})), id="create"),
    pytest.param(review(pod(assigned()), pod(QUARTER), operation="UPDATE"), id="update"),
    pytest.param(
        review(pod(assigned()), pod(QUARTER), operation="UPDATE", subresource="status"),
        id="status",
    ),
    pytest.param(
        review(pod(assigned()), pod(QUARTER), operation="UPDATE", subresource="resize"),
        id="resize",
    ),
    pytest.param(
        review(
            pod(assigned()), pod(QUARTER), operation="UPDATE", subresource="ephemeralcontainers"
        ),
        id="ephemeralcontainers",
    ),
    pytest.param(
        review({"metadata": {"annotations": {keys.ASSIGNED: "x"}}}, subresource="binding"),
        id="pods/binding",
    ),
    pytest.param(
        review({"metadata": {"annotations": {keys.ASSIGNED: "x"}}}, resource="bindings"),
        id="bindings",
    ),
]


@pytest.mark.parametrize("raw", ROADS)
def test_no_road_to_an_assignment_for_users(raw: Raw) -> None:
    """Refused with 403 and the field."""
    answer = validate(raw)
    assert not answer.allowed
    assert answer.message.startswith("metadata.annotations[gpu-fraction.dev/assigned]: only")


@pytest.mark.parametrize("raw", ROADS)
def test_the_systems_own_users_may_assign(raw: Raw) -> None:
    """The scheduler extender in the Binding, the node daemon by an update."""
    assert validate(changed(raw, userInfo={"username": SYSTEM})).allowed


@pytest.mark.parametrize("username", ["", SYSTEM + " ", SYSTEM.upper(), "system:masters"])
def test_a_system_user_is_known_by_the_whole_name(username: str) -> None:
    """Not by a part of it, nor by being powerful."""
    raw = review(pod(assigned()), pod(QUARTER), operation="UPDATE", user=username)
    assert not validate(raw).allowed


def test_a_binding_without_annotations_of_ours_passes() -> None:
    """Every scheduler's."""
    for metadata in ({}, {"annotations": None}, {"annotations": {"a": "b"}}):
        raw = review({"metadata": metadata, "target": {"name": "n"}}, subresource="binding")
        assert validate(raw).allowed
    with pytest.raises(BadReview, match="is not a Binding"):
        validate(review({"metadata": "none"}, subresource="binding"))


def test_a_privileged_debugger_is_refused_by_policy() -> None:
    """The cluster's knob holds for ephemeral containers too."""
    new = pod(QUARTER, ephemeral=[container("d", securityContext={"privileged": True})])
    raw = review(new, pod(QUARTER), operation="UPDATE", subresource="ephemeralcontainers")
    assert not validate(raw).allowed
    assert validate(raw, policy_privileged="allow").allowed


def test_a_debugger_that_chooses_cards_is_refused() -> None:
    """In any pod."""
    debugger = container("d", env=env(("NVIDIA_VISIBLE_DEVICES", "all")))
    raw = review(
        pod(None, ephemeral=[debugger]),
        pod(),
        operation="UPDATE",
        subresource="ephemeralcontainers",
    )
    assert not validate(raw).allowed
