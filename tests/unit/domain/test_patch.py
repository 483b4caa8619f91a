"""The smallest JSON patch that brings a pod to what a backend wants."""

import copy
from typing import Any

import jsonpatch
import pytest

from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.patch import Operation, build, escape
from gpu_fraction.domain.pod import ResourceClaim, Toleration
from gpu_fraction.domain.request import Refused
from tests.builders.pods import Raw, container, env, pod, typed


def operations(raw: Raw, edit: PodEdit) -> list[Operation]:
    """The patch; applied by another library, nothing is left to do."""
    made = build(typed(raw), edit)
    after = jsonpatch.JsonPatch(made).apply(copy.deepcopy(raw))
    assert build(typed(after), edit) == []
    return made


def refusals(raw: Raw, edit: PodEdit) -> list[str]:
    """What stands in the way."""
    with pytest.raises(Refused) as refused:
        build(typed(raw), edit)
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("key", "token"),
    [
        ("plain", "plain"),
        ("a/b", "a~1b"),
        ("a~b", "a~0b"),
        ("~1", "~01"),
        ("/~/", "~1~0~1"),
        ("", ""),
        ("nvidia.com/gpu", "nvidia.com~1gpu"),
    ],
)
def test_keys_are_escaped_for_json_pointers(key: str, token: str) -> None:
    """RFC 6901: tilde first, so that no escape is escaped again."""
    assert escape(key) == token


def test_an_empty_edit_changes_nothing() -> None:
    """A pod that nobody wants changed gets no patch."""
    assert operations(pod(), PodEdit()) == []


@pytest.mark.parametrize("annotations", [None, "null"])
def test_annotations_are_created_where_there_are_none(annotations: str | None) -> None:
    """Missing and null alike: an add below a missing parent fails the whole request."""
    raw = pod()
    if annotations == "null":
        raw["metadata"]["annotations"] = None
    assert operations(raw, PodEdit(annotations={"a/b": "1", "c~d": "2"})) == [
        {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "1", "c~d": "2"}}
    ]


@pytest.mark.parametrize("present", [{}, {"mine": "x"}])
def test_annotations_are_added_one_by_one_where_there_are_some(present: dict[str, str]) -> None:
    """The others stay; an empty map is a map."""
    assert operations(pod(present), PodEdit(annotations={"a/b": "1", "c~d": "2"})) == [
        {"op": "add", "path": "/metadata/annotations/a~1b", "value": "1"},
        {"op": "add", "path": "/metadata/annotations/c~0d", "value": "2"},
    ]


def test_an_equal_annotation_is_left_and_another_refused() -> None:
    """Nothing that stands there is replaced."""
    edit = PodEdit(annotations={"a": "1"})
    assert operations(pod({"a": "1"}), edit) == []
    assert refusals(pod({"a": "2"}), edit) == [
        'metadata.annotations[a]: only gpu-fraction sets it; remove the value "2"'
    ]


GPU = {"x/gpu": "1", "x/mem": "100"}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        pytest.param(
            None,
            [("/resources", {"limits": GPU, "requests": GPU})],
            id="missing",
        ),
        pytest.param(
            {},
            [("/resources/limits", GPU), ("/resources/requests", GPU)],
            id="empty",
        ),
        pytest.param(
            {"limits": None, "requests": None},
            [("/resources/limits", GPU), ("/resources/requests", GPU)],
            id="null",
        ),
        pytest.param(
            {"limits": {}, "requests": {}},
            [
                ("/resources/limits/x~1gpu", "1"),
                ("/resources/limits/x~1mem", "100"),
                ("/resources/requests/x~1gpu", "1"),
                ("/resources/requests/x~1mem", "100"),
            ],
            id="empty-maps",
        ),
        pytest.param(
            {"limits": {"cpu": "1"}},
            [
                ("/resources/limits/x~1gpu", "1"),
                ("/resources/limits/x~1mem", "100"),
                ("/resources/requests", GPU),
            ],
            id="limits-only",
        ),
        pytest.param(
            {"requests": {"cpu": "1"}},
            [
                ("/resources/limits", GPU),
                ("/resources/requests/x~1gpu", "1"),
                ("/resources/requests/x~1mem", "100"),
            ],
            id="requests-only",
        ),
        pytest.param(
            {"limits": {"x/gpu": "1"}, "requests": {"x/gpu": "1"}},
            [("/resources/limits/x~1mem", "100"), ("/resources/requests/x~1mem", "100")],
            id="one-is-there",
        ),
        pytest.param(
            {"limits": GPU},
            [("/resources/requests", GPU)],
            id="limits-are-there",
        ),
        pytest.param(
            {"limits": {"x/gpu": "1000m", "x/mem": "0.1k"}, "requests": GPU},
            [],
            id="the-same-amount-written-otherwise",
        ),
    ],
)
def test_limits_and_requests_are_written_both(
    resources: Any, expected: list[tuple[str, object]]
) -> None:
    """The API server has copied limits to requests already, and refuses one without the other."""
    raw = pod(None, container("first"), container("main"))
    if resources is not None:
        raw["spec"]["containers"][1]["resources"] = resources
    assert operations(raw, PodEdit(resources={"main": GPU})) == [
        {"op": "add", "path": "/spec/containers/1" + path, "value": value}
        for path, value in expected
    ]


def test_parents_are_not_shared_between_limits_and_requests() -> None:
    """An applier that keeps references must not make one out of the two."""
    (made,) = operations(pod(), PodEdit(resources={"main": GPU}))
    assert made["value"]["limits"] is not made["value"]["requests"]


@pytest.mark.parametrize("given", ["2", "0", "nonsense", ""])
@pytest.mark.parametrize("part", ["limits", "requests"])
def test_another_amount_is_refused(part: str, given: str) -> None:
    """What the user wrote is not replaced; the message says what it should be."""
    raw = pod(None, container("main", {"x/gpu": "1"}))
    raw["spec"]["containers"][0]["resources"][part]["x/gpu"] = given
    assert refusals(raw, PodEdit(resources={"main": {"x/gpu": "1"}})) == [
        (
            f'spec.containers[0].resources.{part}[x/gpu]: is "{given}", but the annotations '
            "request 1; remove it, gpu-fraction sets it"
        )
    ]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        pytest.param(
            None,
            [("/env", [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}])],
            id="missing",
        ),
        pytest.param(
            [],
            [("/env/-", {"name": "A", "value": "1"}), ("/env/-", {"name": "B", "value": "2"})],
            id="empty",
        ),
        pytest.param(
            env(("Z", "z"), ("A", "mine")),
            [("/env/-", {"name": "B", "value": "2"})],
            id="one-is-there",
        ),
        pytest.param(env(("B", None), ("A", "mine")), [], id="both-are-there-one-from-elsewhere"),
    ],
)
def test_variables_are_added_only_where_absent(
    present: list[Raw] | None, expected: list[tuple[str, object]]
) -> None:
    """A variable that the user set keeps its value and its place."""
    raw = pod(None, container("main"))
    if present is not None:
        raw["spec"]["containers"][0]["env"] = present
    assert operations(raw, PodEdit(env={"main": {"A": "1", "B": "2"}})) == [
        {"op": "add", "path": "/spec/containers/0" + path, "value": value}
        for path, value in expected
    ]


def test_sidecars_are_patched_where_they_stand() -> None:
    """An init container's pointer names the init containers."""
    raw = pod(None, init=[container("fetch"), container("proxy", restartPolicy="Always")])
    assert operations(
        raw, PodEdit(resources={"proxy": {"x": "1"}}, env={"proxy": {"A": "1"}})
    ) == [
        {
            "op": "add",
            "path": "/spec/initContainers/1/resources",
            "value": {"limits": {"x": "1"}, "requests": {"x": "1"}},
        },
        {
            "op": "add",
            "path": "/spec/initContainers/1/env",
            "value": [{"name": "A", "value": "1"}],
        },
    ]


def test_an_edit_of_a_container_that_is_not_there_is_refused() -> None:
    """It would have no place to go."""
    assert refusals(pod(), PodEdit(resources={"who": {"x": "1"}})) == [
        'spec.containers: has no container "who"'
    ]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (None, [{"op": "add", "path": "/spec/schedulerName", "value": "ours"}]),
        ("", [{"op": "add", "path": "/spec/schedulerName", "value": "ours"}]),
        (
            "default-scheduler",
            [{"op": "replace", "path": "/spec/schedulerName", "value": "ours"}],
        ),
        ("ours", []),
    ],
)
def test_the_scheduler_is_set_where_nobody_chose_one(
    present: str | None, expected: list[Operation]
) -> None:
    """The API server's default is nobody's choice."""
    raw = pod() if present is None else pod(schedulerName=present)
    assert operations(raw, PodEdit(scheduler_name="ours")) == expected


def test_a_chosen_scheduler_stays() -> None:
    """Whether that is allowed is for the policy to say."""
    chosen = typed(pod(schedulerName="theirs"))
    assert build(chosen, PodEdit(scheduler_name="ours")) == []
    assert build(typed(pod(schedulerName="default-scheduler")), PodEdit()) == []


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (None, [{"op": "add", "path": "/spec/runtimeClassName", "value": "nvidia"}]),
        ("", [{"op": "add", "path": "/spec/runtimeClassName", "value": "nvidia"}]),
        ("kata", []),
    ],
)
def test_the_runtime_class_is_set_where_there_is_none(
    present: str | None, expected: list[Operation]
) -> None:
    """One that the user chose stays."""
    raw = pod() if present is None else pod(runtimeClassName=present)
    assert operations(raw, PodEdit(runtime_class_name="nvidia")) == expected


LABELS = ("metadata", "labels")
SELECTOR = ("spec", "nodeSelector")


@pytest.mark.parametrize(
    ("part", "field", "edit"),
    [
        (*LABELS, PodEdit(labels={"a/b": "1"})),
        (*SELECTOR, PodEdit(node_selector={"a/b": "1"})),
    ],
)
def test_labels_and_node_selectors(part: str, field: str, edit: PodEdit) -> None:
    """The mapping is made where it is missing or null; what its author wrote stays, or clashes."""
    raw = pod()
    for missing in ({}, {field: None}):
        raw[part].update(missing)
        assert operations(raw, edit) == [
            {"op": "add", "path": f"/{part}/{field}", "value": {"a/b": "1"}}
        ]
    raw[part][field] = {"c": "2"}
    assert operations(raw, edit) == [{"op": "add", "path": f"/{part}/{field}/a~1b", "value": "1"}]
    raw[part][field] = {"a/b": "1"}
    assert operations(raw, edit) == []
    raw[part][field] = {"a/b": "{2}"}
    assert refusals(raw, edit) == [
        (
            f'{part}.{field}[a/b]: is "{{2}}", but the annotations request 1; remove it, '
            "gpu-fraction sets it"
        )
    ]


GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
TOLERATING = PodEdit(tolerations=(Toleration("nvidia.com/gpu", "Exists", effect="NoSchedule"),))


def test_tolerations_are_added_where_none_covers_them() -> None:
    """Others stay as they are."""
    assert operations(pod(), TOLERATING) == [
        {"op": "add", "path": "/spec/tolerations", "value": [GPU_TAINT]}
    ]
    other = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300}
    for present in ([], [other], [{**GPU_TAINT, "effect": "NoExecute"}]):
        assert operations(pod(tolerations=present), TOLERATING) == [
            {"op": "add", "path": "/spec/tolerations/-", "value": GPU_TAINT}
        ]
    assert operations(pod(tolerations=[other, GPU_TAINT]), TOLERATING) == []
    for wide in ({"operator": "Exists"}, {"key": GPU_TAINT["key"], "operator": "Exists"}):
        assert operations(pod(tolerations=[wide]), TOLERATING) == []
    equal = {"key": GPU_TAINT["key"], "operator": "Equal", "value": "present"}
    assert len(operations(pod(tolerations=[equal]), TOLERATING)) == 1


CLAIMING = PodEdit(
    resources={"main": {"x": "1"}},
    resource_claims=(ResourceClaim("gpu", resource_claim_template_name="half"),),
    container_claims={"main": ("gpu",)},
)
CLAIM = {"name": "gpu", "resourceClaimTemplateName": "half"}


@pytest.mark.parametrize(
    "present", [None, {}, {"claims": []}, {"claims": [{"name": "nic", "request": "r"}]}]
)
def test_a_container_gets_its_claim(present: Raw | None) -> None:
    """Beside its resources and the claims that it has."""
    raw = pod(None, container("main") if present is None else container("main", resources=None))
    if present is not None:
        raw["spec"]["containers"][0]["resources"] = present
    after = jsonpatch.JsonPatch(operations(raw, CLAIMING)).apply(copy.deepcopy(raw))
    claims = [*(present or {}).get("claims", []), {"name": "gpu"}]
    assert after["spec"]["containers"][0]["resources"] == {
        "limits": {"x": "1"},
        "requests": {"x": "1"},
        "claims": claims,
    }
    assert after["spec"]["resourceClaims"] == [CLAIM]


def test_a_claim_alone() -> None:
    """A container that asks for nothing else, in a pod that has another claim."""
    nic = {"name": "nic", "resourceClaimName": "shared"}
    edit = PodEdit(container_claims={"main": ("nic",)}, resource_claims=CLAIMING.resource_claims)
    assert operations(pod(resourceClaims=[nic]), edit) == [
        {
            "op": "add",
            "path": "/spec/containers/0/resources",
            "value": {"claims": [{"name": "nic"}]},
        },
        {"op": "add", "path": "/spec/resourceClaims/-", "value": CLAIM},
    ]


def test_another_claim_of_the_same_name_is_refused() -> None:
    """It would be the author's choice of devices."""
    mine = {"name": "gpu", "resourceClaimName": "mine"}
    assert refusals(pod(resourceClaims=[mine]), CLAIMING) == [
        (
            'spec.resourceClaims[0]: the name "gpu" is reserved for gpu-fraction\'s claim; '
            "rename this one"
        )
    ]


def test_every_conflict_is_named_at_once() -> None:
    """Across annotations, containers and amounts."""
    raw = pod({"a": "2"}, container("main", {"x": "2"}))
    edit = PodEdit(annotations={"a": "1"}, resources={"main": {"x": "1"}, "who": {"x": "1"}})
    assert len(refusals(raw, edit)) == 4


def test_the_patch_leaves_alone_what_it_does_not_know() -> None:
    """Fields newer than this program pass by untouched."""
    raw = pod({"a": "1"}, container("main", {"cpu": "1"}, future={"field": [1, None]}))
    raw["spec"]["future"] = {"deep": {"er": True}}
    before = copy.deepcopy(raw)
    edit = PodEdit(
        {"b": "2"},
        resources={"main": {"x": "1"}},
        env={"main": {"E": "1"}},
        scheduler_name="ours",
        runtime_class_name="nvidia",
    )
    after = jsonpatch.JsonPatch(build(typed(raw), edit)).apply(raw)
    before["metadata"]["annotations"]["b"] = "2"
    before["spec"]["containers"][0]["resources"]["limits"]["x"] = "1"
    before["spec"]["containers"][0]["resources"]["requests"]["x"] = "1"
    before["spec"]["containers"][0]["env"] = [{"name": "E", "value": "1"}]
    before["spec"]["schedulerName"] = "ours"
    before["spec"]["runtimeClassName"] = "nvidia"
    assert after == before
