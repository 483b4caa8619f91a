"""What may not change once a pod exists, by whatever road the change comes."""

from collections.abc import Mapping
from typing import Literal

import pytest

from gpu_fraction.domain import changes, keys, request_annotation
from gpu_fraction.domain.guard import Policy
from gpu_fraction.domain.request import Request, Slice
from tests.builders.pods import Raw, container, env, pod, typed

QUARTER = {"gpu-fraction": "0.25"}
RENDERED = {**QUARTER, keys.REQUEST: "r"}
WRITTEN = "cannot change after the pod is created; create a new pod with the new value"
XGPU_MEMORY = "volcano.sh/gpu-mem.128Mi"
SYSTEM = "only gpu-fraction sets it; leave it unchanged"


def told(old: Raw, new: Raw, *, trusted: bool = False, privileged: bool = False) -> list[str]:
    """What is wrong with the change."""
    policy = Policy(privileged="allow" if privileged else "refuse")
    return [str(p) for p in changes.update(typed(old), typed(new), policy, trusted=trusted)]


def test_what_is_not_ours_may_change() -> None:
    """Labels, other annotations, images, tolerations."""
    old = pod({**RENDERED, "mine": "1"}, container("main", image="a"))
    new = pod({**RENDERED, "yours": "2"}, container("main", image="b"), tolerations=[{}])
    assert told(old, new) == []
    assert told(old, old) == []


@pytest.mark.parametrize("key", [*keys.USER_KEYS, "gpu-fraction.dev/container.main", "gpu-new"])
@pytest.mark.parametrize("trusted", [True, False])
def test_what_users_wrote_stays(key: str, trusted: bool) -> None:
    """Setting, changing and removing alike, whoever does it: the pod was rendered from it."""
    expected = [f"metadata.annotations[{key}]: {WRITTEN}"]
    assert told(pod({}), pod({key: "1"}), trusted=trusted) == expected
    assert told(pod({key: "1"}), pod({key: "2"}), trusted=trusted) == expected
    assert told(pod({key: "1"}), pod(None), trusted=trusted) == expected
    assert told(pod({key: "1"}), pod({key: "1", "other": "x"}), trusted=trusted) == []


@pytest.mark.parametrize("value", [None, "1", "8"])
@pytest.mark.parametrize(
    ("label", "resource"),
    [("aliyun.com/gpu-count", "aliyun.com/gpu-mem"), ("volcano.sh/gpu-num", XGPU_MEMORY)],
)
def test_the_number_of_cards_that_a_label_says_stays(
    label: str, resource: str, value: str | None
) -> None:
    """Quotas read it again and again, the stack's scheduler once."""

    def labelled(text: str | None, *containers: Raw) -> Raw:
        made = pod(None, *containers)
        return {**made, "metadata": {"labels": {} if text is None else {label: text}}}

    asking = container(resources={resource: "16"})
    said = "the quota charges the pod by it; create a new pod with the new value"
    assert told(labelled("4", asking), labelled(value, asking)) == [
        f"metadata.labels[{label}]: cannot change after the pod is created: {said}"
    ]
    assert told(labelled("4"), labelled(value)) == []


@pytest.mark.parametrize("key", keys.SYSTEM_KEYS)
def test_users_do_not_touch_system_annotations(key: str) -> None:
    """Setting, changing and removing alike."""
    expected = [f"metadata.annotations[{key}]: {SYSTEM}"]
    assert told(pod({}), pod({key: "1"})) == expected
    assert told(pod({key: "1"}), pod({key: "2"})) == expected
    assert told(pod({key: "1"}), pod({})) == expected


def test_the_system_assigns() -> None:
    """And corrects, and takes back; the request is written at creation only."""
    assert told(pod({}), pod({keys.ASSIGNED: "1"}), trusted=True) == []
    assert told(pod({keys.ASSIGNED: "1"}), pod({keys.ASSIGNED: "2"}), trusted=True) == []
    assert told(pod({keys.ASSIGNED: "1"}), pod({}), trusted=True) == []
    assert told(pod({keys.REQUEST: "1"}), pod({keys.REQUEST: "2"}), trusted=True) == [
        f"metadata.annotations[gpu-fraction.dev/request]: {SYSTEM}"
    ]


def test_a_key_cannot_forge_a_message() -> None:
    """It is shown escaped and cut."""
    (line,) = told(pod({}), pod({"gpu-\n" + "x" * 100: "1"}))
    assert line == f"metadata.annotations[gpu-\\n{'x' * 59}...]: {WRITTEN}"


@pytest.mark.parametrize(
    ("annotations", "trusted", "expected"),
    [
        ({}, False, []),
        ({"example.com/a": "b"}, False, []),
        ({keys.ASSIGNED: "x"}, True, []),
        (
            {keys.ASSIGNED: "x"},
            False,
            [f"metadata.annotations[gpu-fraction.dev/assigned]: {SYSTEM}"],
        ),
        (
            {keys.REQUEST: "x"},
            True,
            [f"metadata.annotations[gpu-fraction.dev/request]: {SYSTEM}"],
        ),
        ({"gpu-fraction": "1"}, True, [f"metadata.annotations[gpu-fraction]: {WRITTEN}"]),
        (
            {"gpu-fraction.dev/x": "1"},
            False,
            [f"metadata.annotations[gpu-fraction.dev/x]: {WRITTEN}"],
        ),
    ],
)
def test_a_bindings_annotations(
    annotations: Mapping[str, str], trusted: bool, expected: list[str]
) -> None:
    """The API server merges them into the pod."""
    found = changes.binding(annotations, trusted=trusted)
    assert [str(problem) for problem in found] == expected


# Ephemeral containers.


@pytest.mark.parametrize(
    ("variable", "refused"),
    [
        (("NVIDIA_VISIBLE_DEVICES", "all"), True),
        (("NVIDIA_VISIBLE_DEVICES", "void"), True),
        (("NVIDIA_VISIBLE_DEVICES", None), True),
        (("CUDA_VISIBLE_DEVICES", "0"), True),
        (("CUDA_MPS_PIPE_DIRECTORY", "/x"), True),
        (("PATH", "/bin"), False),
    ],
)
def test_variables_of_a_debugger(variable: tuple[str, str | None], refused: bool) -> None:
    """``kubectl debug`` is no way round the rules of creation."""
    old = pod(RENDERED)
    new = pod(RENDERED, ephemeral=[container("debug", env=env(variable))])
    assert bool(told(old, new)) is refused
    if refused:
        assert told(old, new)[0].startswith("spec.ephemeralContainers[0].env[0]: ")


def test_a_debugger_in_a_pod_without_gpu_chooses_no_cards_either() -> None:
    """NVIDIA's runtime would give them; other variables are of no concern there."""
    new = pod(
        None,
        ephemeral=[
            container("a", env=env(("NVIDIA_VISIBLE_DEVICES", "all"))),
            container("b", env=env(("NVIDIA_VISIBLE_DEVICES", "none"))),
            container("c", env=env(("CUDA_VISIBLE_DEVICES", "0"))),
        ],
    )
    (line,) = told(pod(), new)
    assert line.startswith("spec.ephemeralContainers[0].env[0]: ")


def test_a_privileged_debugger() -> None:
    """It would see every GPU of the node, as any privileged container of a GPU pod."""
    new = pod(RENDERED, ephemeral=[container("d", securityContext={"privileged": True})])
    (line,) = told(pod(RENDERED), new)
    assert line.startswith("spec.ephemeralContainers[0].securityContext.privileged: ")
    assert told(pod(RENDERED), new, privileged=True) == []
    plain = pod(None, ephemeral=[container("d", securityContext={"privileged": True})])
    assert told(pod(), plain) == []


@pytest.mark.parametrize(
    ("isolation", "backend"),
    [("required", "native"), ("preferred", "native"), ("required", "hami")],
)
def test_no_debugger_becomes_root_beside_a_share_that_must_be_enforced(
    isolation: Literal["required", "preferred"], backend: str
) -> None:
    """Some engines hold only where nobody is root, and the node looked when the pod started."""
    request = Request((Slice("main", 1, 250, None, 250),), isolation=isolation)
    written = {**QUARTER, keys.REQUEST: request_annotation.render(request, backend)}
    user = {"runAsUser": 1000, "allowPrivilegeEscalation": False}
    root, other = container("d"), container("e", securityContext=user)
    problems = told(pod(written), pod(written, ephemeral=[root, other]))
    if (isolation, backend) == ("required", "native"):
        (line,) = problems
        assert line.startswith("spec.ephemeralContainers[0].securityContext.runAsNonRoot: ")
        assert "kubectl debug --profile=restricted" in line
    else:
        assert problems == []


def test_a_debugger_that_is_there_already_stays() -> None:
    """Rules hold for what is new, so that no old pod becomes unchangeable."""
    there = container("debug", env=env(("NVIDIA_VISIBLE_DEVICES", "all")))
    old = pod(RENDERED, ephemeral=[there])
    new = pod(RENDERED, ephemeral=[there, container("second")])
    assert told(old, new) == []
