"""The verdict on one pod, by the path that webhook and command share."""

import copy
from collections.abc import Mapping
from typing import Any

import jsonpatch
import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.admission import Rules, Verdict, admit, uses_gpu
from gpu_fraction.domain.backends import BACKENDS, BackendConfig
from gpu_fraction.domain.guard import Policy
from gpu_fraction.domain.request import Refused
from gpu_fraction.domain.sizes import CardSizes
from tests.builders.pods import Raw, container, env, pod, typed

CONFIG = BackendConfig(CardSizes(16384))
NATIVE = {keys.SLOT: "1", keys.CORE_MILLI: "250", keys.MEMORY_MIB: "4096"}
QUARTER = {"gpu-fraction": "0.25"}
GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
REQUEST = (
    '{"v":1,"backend":"native","containers":[{"name":"main","cards":1,"coreMilli":250,'
    '"memoryMilli":250}],"placement":"binpack","isolation":"preferred"}'
)


def verdict(raw: Raw, backend: str = "native", *, trusted: bool = False, **policy: Any) -> Verdict:
    """On a pod as it stands."""
    rules = Rules(policy=Policy(**policy))
    return admit(typed(raw), BACKENDS[backend](CONFIG), rules, trusted=trusted)


def refusals(
    raw: Raw, backend: str = "native", *, trusted: bool = False, **policy: Any
) -> list[str]:
    """Every problem, as its author reads it."""
    with pytest.raises(Refused) as refused:
        verdict(raw, backend, trusted=trusted, **policy)
    return [str(problem) for problem in refused.value.problems]


def admitted(raw: Raw, backend: str = "native") -> Raw:
    """The pod with the patch applied; a second verdict leaves it as it is."""
    after: Raw = jsonpatch.JsonPatch(verdict(raw, backend).operations).apply(copy.deepcopy(raw))
    assert verdict(after, backend).operations == []
    return after


def test_a_quarter_of_a_card() -> None:
    """The whole way: one annotation in, the right pod out."""
    raw = pod(QUARTER, container("main", {"cpu": "1"}), container("side"))
    expected = copy.deepcopy(raw)
    expected["metadata"]["annotations"][keys.REQUEST] = REQUEST
    main = expected["spec"]["containers"][0]
    main["resources"] = {"limits": {"cpu": "1", **NATIVE}, "requests": {"cpu": "1", **NATIVE}}
    main["env"] = [
        {"name": "GPU_FRACTION", "value": "0.25"},
        {"name": "GPU_MEMORY_LIMIT_MIB", "value": "4096"},
    ]
    expected["spec"]["schedulerName"] = "gpu-fraction-scheduler"
    expected["spec"]["tolerations"] = [GPU_TAINT]
    assert admitted(raw) == expected


@pytest.mark.parametrize("resources", [{"cpu": "1"}, {"nvidia.com/gpu": "1"}])
@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_a_pod_that_does_not_opt_in_is_left_as_it_is(
    backend: str, resources: dict[str, str]
) -> None:
    """No patch, no warning, whatever else it does, and whatever it asks of a device plugin."""
    raw = pod(
        {"example.com/x": "y"},
        container(
            "main",
            resources,
            securityContext={"privileged": True},
            env=env(("CUDA_VISIBLE_DEVICES", "0"), ("CUDA_MPS_PIPE_DIRECTORY", "/x")),
        ),
        nodeName="n",
        schedulerName="s",
        volumes=[{"name": "h", "hostPath": {"path": "/dev"}}],
    )
    assert verdict(raw, backend) == Verdict()


def test_a_pod_that_asks_a_device_plugin_chooses_no_cards() -> None:
    """It would have others than the plugin gave it, and be charged for those."""
    chosen = env(("NVIDIA_VISIBLE_DEVICES", "all"))
    (told,) = refusals(pod(None, container("main", {"nvidia.com/gpu": "1"}, env=chosen)))
    assert told.startswith("spec.containers[0].env[0]: NVIDIA_VISIBLE_DEVICES may not be set")


def test_problems_of_annotations_and_of_the_pod_are_named_together() -> None:
    """Whichever part of it they are in."""
    raw = pod({"gpu-fraction": "1.5", keys.ASSIGNED: "x"}, nodeName="n")
    told = refusals(raw)
    assert [line.partition(":")[0] for line in told] == [
        "metadata.annotations[gpu-fraction]",
        "spec.nodeName",
        "metadata.annotations[gpu-fraction.dev/assigned]",
    ]


# System annotations.


@pytest.mark.parametrize("annotations", [{}, QUARTER])
def test_nobody_assigns_cards_to_himself(annotations: Mapping[str, str]) -> None:
    """The assignment says which cards a container is handed."""
    raw = pod({**annotations, keys.ASSIGNED: '{"v":1,"containers":{}}'})
    assert refusals(raw) == [
        "metadata.annotations[gpu-fraction.dev/assigned]: only gpu-fraction sets it; remove it"
    ]
    assert verdict(raw, trusted=True).operations or not annotations


def test_a_request_annotation_alone_is_forged() -> None:
    """It would say what a pod costs and gets, without asking for it."""
    assert refusals(pod({keys.REQUEST: REQUEST})) == [
        "metadata.annotations[gpu-fraction.dev/request]: only gpu-fraction sets it; remove it"
    ]
    assert verdict(pod({keys.REQUEST: REQUEST}), trusted=True) == Verdict()


@pytest.mark.parametrize("forged", [REQUEST.replace("250", "1"), REQUEST + " ", "{}", ""])
def test_a_request_annotation_must_be_what_the_annotations_come_to(forged: str) -> None:
    """Byte for byte."""
    (told,) = refusals(pod({**QUARTER, keys.REQUEST: forged}))
    assert told.startswith("metadata.annotations[gpu-fraction.dev/request]: ")
    assert "only gpu-fraction sets it; remove the value" in told


def test_an_injected_container_is_not_the_first() -> None:
    """The share stays with the container that the first call gave it to, and cannot be moved."""
    after = admitted(pod(QUARTER))
    present = after["spec"]["containers"]
    present.insert(0, container("mesh"))
    assert verdict(after).operations == []
    del present[1]
    assert [told.partition(":")[0] for told in refusals(after)] == [
        "metadata.annotations[gpu-fraction.dev/request]"
    ]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
@pytest.mark.parametrize("sidecar", [True, False])
def test_what_is_injected_after_the_first_call_changes_nothing(
    before: bool, kind: str, sidecar: bool
) -> None:
    """The slice is found by name wherever the others stand, at reinvocation and at validation."""
    policy = {"restartPolicy": "Always"} if sidecar else {}
    for raw, own in (
        (pod(QUARTER), "containers"),
        (
            pod(
                {f"{keys.CONTAINER_PREFIX}side": "0.25"},
                init=[container("side", restartPolicy="Always")],
            ),
            "initContainers",
        ),
    ):
        after = admitted(raw)
        present = after["spec"].setdefault(kind, [])
        present.insert(0 if before else len(present), container("mesh", **policy))
        assert verdict(after).operations == []
        assert [c["name"] for c in after["spec"][own] if keys.SLOT in str(c.get("resources"))] == [
            "main" if own == "containers" else "side"
        ]


MAIN_CONTAINER = "kubectl.kubernetes.io/default-container"


def getting(raw: Raw) -> list[str]:
    """The containers that hold a GPU."""
    return [c["name"] for c in raw["spec"]["containers"] if keys.SLOT in str(c.get("resources"))]


def test_a_container_injected_before_the_first_call_is_not_the_main_one() -> None:
    """Injectors say which one is, by kubectl's annotation; nothing is left to be warned of."""
    raw = pod({**QUARTER, MAIN_CONTAINER: "main"}, container("fuse-sidecar"), container())
    assert getting(admitted(raw)) == ["main"]
    assert not any("to give it to another" in told for told in verdict(raw).warnings)


def test_the_annotation_of_ours_counts_before_kubectls() -> None:
    """It is about GPUs."""
    notes = {**QUARTER, MAIN_CONTAINER: "main", keys.CONTAINER_NAME: "trainer"}
    assert getting(admitted(pod(notes, container(), container("trainer")))) == ["trainer"]


def test_kubectls_annotation_moves_no_share_after_the_first_call() -> None:
    """An injector that comes later may set it."""
    after = admitted(pod(QUARTER, container(), container("side")))
    after["metadata"]["annotations"][MAIN_CONTAINER] = "side"
    assert verdict(after).operations == []


@pytest.mark.parametrize("main", [None, "gone", "setup"])
def test_the_first_of_several_containers_gets_the_share_with_a_warning(main: str | None) -> None:
    """Nothing tells which is the user's own; the names and the annotation are in the warning."""
    notes = {**QUARTER, **({MAIN_CONTAINER: main} if main else {})}
    raw = pod(notes, container("fuse-sidecar"), container("main"), init=[container("setup")])
    assert verdict(raw).warnings[0] == (
        "container fuse-sidecar gets the GPU because it is the first container; to give it to "
        "another (main), set the annotation gpu-fraction-container-name"
    )
    assert getting(admitted(raw)) == ["fuse-sidecar"]


@pytest.mark.parametrize(
    ("notes", "containers"),
    [
        pytest.param(QUARTER, ["main"], id="one container"),
        pytest.param({**QUARTER, keys.CONTAINER_NAME: "side"}, ["main", "side"], id="named"),
        pytest.param(
            {**QUARTER, f"{keys.CONTAINER_PREFIX}side": "0.1"}, ["main", "side"], id="own share"
        ),
        pytest.param(
            {f"{keys.CONTAINER_PREFIX}side": "0.1"}, ["main", "side"], id="shares by name only"
        ),
    ],
)
def test_nobody_is_warned_where_one_container_can_be_meant(
    notes: Mapping[str, str], containers: list[str]
) -> None:
    """A warning at each pod would be read by nobody."""
    told = verdict(pod(notes, *map(container, containers))).warnings
    assert not any("to give it to another" in line for line in told)


def test_a_request_annotation_moves_no_share_to_an_init_container() -> None:
    """Only a regular container is chosen for a share that names none."""
    forged = REQUEST.replace("main", "setup")
    raw = pod({**QUARTER, keys.REQUEST: forged}, init=[container("setup")])
    (told,) = refusals(raw)
    assert "only gpu-fraction sets it; remove the value" in told


def test_a_copied_pod_is_admitted_as_it_is() -> None:
    """``kubectl get -o yaml``, a backup, another namespace: it went through here before."""
    copied = admitted(pod(QUARTER))
    assert verdict(copied).operations == []


def test_a_copied_pod_that_was_bound_carries_an_assignment() -> None:
    """Those cards are another pod's."""
    copied = admitted(pod(QUARTER))
    copied["metadata"]["annotations"][keys.ASSIGNED] = "x"
    (told,) = refusals(copied)
    assert told.startswith("metadata.annotations[gpu-fraction.dev/assigned]")


def test_a_copied_pod_with_another_share_is_refused() -> None:
    """What it was rendered to no longer fits what it asks."""
    copied = admitted(pod(QUARTER))
    copied["metadata"]["annotations"]["gpu-fraction"] = "0.5"
    told = refusals(copied)
    assert told[0].startswith("metadata.annotations[gpu-fraction.dev/request]: ")
    assert {line.partition(":")[0] for line in told[1:]} == {
        f"spec.containers[0].resources.{part}[{name}]"
        for part in ("limits", "requests")
        for name in (keys.CORE_MILLI, keys.MEMORY_MIB)
    }


@pytest.mark.parametrize("backend", ["hami", "nvidia"])
def test_a_pod_copied_from_a_cluster_with_another_stack(backend: str) -> None:
    """It carries the other stack's resources, so it is refused, not run on both."""
    copied = admitted(pod({"gpu-fraction": "1"}))
    told = refusals(copied, backend)
    assert any(keys.SLOT in line for line in told)


# Resources beside annotations.


@pytest.mark.parametrize(
    "name",
    [
        "nvidia.com/gpu",
        "nvidia.com/gpumem",
        "nvidia.com/mig-1g.5gb",
        "nvidia.com/gpu.shared",
        "amd.com/gpu",
        "gpu.intel.com/i915",
        "koordinator.sh/gpu-core",
        "volcano.sh/vgpu-memory",
        "tencent.com/vcuda-core",
        "aliyun.com/gpu-mem",
        keys.SLOT,
        keys.MEMORY_MIB,
        "gpu-fraction.dev/core",
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
@pytest.mark.parametrize("part", ["limits", "requests"])
def test_another_gpu_resource_contradicts_the_annotation(name: str, kind: str, part: str) -> None:
    """In any container, in limits or requests: two ways to ask are one too many."""
    raw = pod(QUARTER)
    other = {"name": "other", "resources": {part: {name: "1", "cpu": "1"}}}
    raw["spec"].setdefault(kind, []).append(other)
    index = len(raw["spec"][kind]) - 1
    assert refusals(raw) == [
        (
            f"spec.{kind}[{index}].resources[{name}]: requests a GPU in addition to the "
            "GPU annotations; remove one of the two"
        )
    ]


def test_another_gpu_resource_in_a_copied_pod() -> None:
    """Having been through here before is no licence for more."""
    copied = admitted(pod(QUARTER, container("main"), container("side")))
    copied["spec"]["containers"][1]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    assert refusals(copied) == [
        (
            "spec.containers[1].resources[nvidia.com/gpu]: requests a GPU in addition to the "
            "GPU annotations; remove one of the two"
        )
    ]


def test_more_of_our_own_resource_in_a_copied_pod() -> None:
    """The amounts are compared."""
    copied = admitted(pod(QUARTER))
    for part in ("limits", "requests"):
        copied["spec"]["containers"][0]["resources"][part][keys.MEMORY_MIB] = "8192"
    assert refusals(copied) == [
        f'spec.containers[0].resources.{part}[gpu-fraction.dev/memory-mib]: is "8192", but the '
        "annotations request 4096; remove it, gpu-fraction sets it"
        for part in ("limits", "requests")
    ]


def test_native_resources_asked_directly_are_admitted() -> None:
    """Without annotations; the pod says all itself."""
    assert verdict(pod(None, container("main", NATIVE))) == Verdict()


def test_native_resources_asked_directly_are_guarded() -> None:
    """They give a GPU, so the rules of GPU pods hold."""
    raw = pod(
        None,
        container("main", NATIVE, securityContext={"privileged": True}),
        nodeName="n",
    )
    assert [line.partition(":")[0] for line in refusals(raw)] == [
        "spec.containers[0].securityContext.privileged",
        "spec.nodeName",
    ]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("gpu-fraction.dev/core", '; did you mean "gpu-fraction.dev/core-milli"?'),
        ("gpu-fraction.dev/slots", '; did you mean "gpu-fraction.dev/slot"?'),
    ],
)
def test_a_resource_of_our_group_that_no_node_offers(name: str, near: str) -> None:
    """The pod would wait for ever, but it is not ours to forbid: a warning."""
    assert verdict(pod(None, container("main", {name: "60"}))) == Verdict(
        warnings=(
            (
                f"spec.containers[0].resources: no node offers {name}{near}; known: "
                "gpu-fraction.dev/slot, gpu-fraction.dev/core-milli, gpu-fraction.dev/memory-mib"
            ),
        )
    )


# Resources without annotations.

NEVER_SERVED = [
    pytest.param({"core_milli": "250"}, "slot", "asks for 0 of", id="core-only"),
    pytest.param({"memory_mib": "1024"}, "slot", "asks for 0 of", id="mem-only"),
    pytest.param({"slot": "1"}, "slot", "add one of the two", id="slot-only"),
    pytest.param(
        {"slot": "3", "core_milli": "250", "memory_mib": "1024"},
        "slot",
        "asks for 3 of gpu-fraction.dev/slot, allowed is exactly 1",
        id="slot-3",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "1500", "memory_mib": "1001"},
        "memory-mib",
        "1001 over 2 cards, allowed: the same whole amount on each",
        id="odd memory",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "1001", "memory_mib": "2"},
        "core-milli",
        "1001 over 2 cards, allowed: the same whole amount on each",
        id="odd compute",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "0", "memory_mib": "1024"},
        "core-milli",
        "is 0, allowed: 1 or more",
        id="core-milli 0",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "65537k"},
        "core-milli",
        "cards is 65537, allowed: 1 to 65536",
        id="more cards than counted",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "17k"},
        "core-milli",
        "requests 17 GPUs, more than any node has; allowed: at most 16000",
        id="more cards than a node has",
    ),
    pytest.param(
        {"slot": "1", "core_milli": "2k", "memory_mib": "2097154"},
        "memory-mib",
        "requests 1048577 MiB on each GPU, more than any GPU has; allowed: at most 1048576",
        id="more memory than a card has",
    ),
]


def named(amounts: Mapping[str, str]) -> dict[str, str]:
    """Our resources by the ends of their names."""
    return {keys.PREFIX + name.replace("_", "-"): text for name, text in amounts.items()}


@pytest.mark.parametrize(("amounts", "field", "message"), NEVER_SERVED)
@pytest.mark.parametrize("part", ["containers", "sidecars"])
def test_resources_that_no_card_can_serve_are_refused(
    amounts: Mapping[str, str], field: str, message: str, part: str
) -> None:
    """With the field and what would pass, instead of a pod that waits or fails for ever."""
    one = container("x", named(amounts))
    raw, path = pod(None, container(), one), "spec.containers[1]"
    if part == "sidecars":
        raw, path = pod(None, init=[{**one, "restartPolicy": "Always"}]), "spec.initContainers[0]"
    (told,) = refusals(raw)
    assert told.startswith(f"{path}.resources[gpu-fraction.dev/{field}]: container x: ")
    assert message in told


@pytest.mark.parametrize("name", keys.NATIVE_RESOURCES)
def test_an_init_container_may_not_hold_a_gpu_by_resources_either(name: str) -> None:
    """The kubelet does not tell which init container it starts."""
    (told,) = refusals(pod(None, init=[container("setup", {name: "1"})]))
    assert told.startswith(f"spec.initContainers[0].resources[{name}]: init container setup: ")
    assert "restartPolicy: Always" in told


def test_every_container_that_cannot_be_served_is_named() -> None:
    """One try shows all that must be mended."""
    wrong = [container(name, {keys.MEMORY_MIB: "1"}) for name in ("a", "b")]
    paths = [told.partition(":")[0] for told in refusals(pod(None, *wrong))]
    assert paths == [f"spec.containers[{at}].resources[{keys.SLOT}]" for at in (0, 1)]


@pytest.mark.parametrize(
    "amounts",
    [
        {"slot": "1", "core_milli": "250"},
        {"slot": "1", "memory_mib": "1024"},
        {"slot": "1", "core_milli": "16k", "memory_mib": "16Mi"},
        {"slot": "0", "core_milli": "0", "memory_mib": "0"},
    ],
)
def test_resources_that_cards_can_serve_are_admitted(amounts: Mapping[str, str]) -> None:
    """Compute alone brings as large a share of any card's memory; zeros ask for nothing."""
    assert verdict(pod(None, container("main", named(amounts)))) == Verdict()


# Variables.


@pytest.mark.parametrize("value", ["all", "void", "none"])
@pytest.mark.parametrize(
    "annotations", [QUARTER, {"gpu-fraction.dev/container.main": "0.25"}, {"gpu-memory": "1Gi"}]
)
def test_a_container_that_gets_a_gpu_chooses_no_cards(
    annotations: dict[str, str], value: str
) -> None:
    """Refused before anything is written, as it will be afterwards."""
    raw = pod(annotations, container("main", env=env(("NVIDIA_VISIBLE_DEVICES", value))))
    (told,) = refusals(raw)
    assert told.startswith("spec.containers[0].env[0]: NVIDIA_VISIBLE_DEVICES may not be set")


def test_a_container_beside_it_may_choose_none() -> None:
    """It has no card to lose."""
    side = container("side", env=env(("NVIDIA_VISIBLE_DEVICES", "void")))
    assert admitted(pod(QUARTER, container("main"), side))["spec"]["containers"][1] == side


# Taints.


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_a_pod_may_run_on_nodes_with_the_taint_of_gpus(backend: str) -> None:
    """GKE and others set it; what the author tolerates besides stays."""
    other = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
    raw = pod({"gpu-fraction": "1"})
    assert admitted(raw, backend)["spec"]["tolerations"] == [GPU_TAINT]
    raw["spec"]["tolerations"] = [other]
    assert admitted(raw, backend)["spec"]["tolerations"] == [other, GPU_TAINT]
    raw["spec"]["tolerations"] = [GPU_TAINT, other]
    assert admitted(raw, backend)["spec"]["tolerations"] == [GPU_TAINT, other]
    assert verdict(pod(None, container("main", {"nvidia.com/gpu": "1"})), backend) == Verdict()


# Schedulers.


@pytest.mark.parametrize(
    ("backend", "scheduler"), [("native", "gpu-fraction-scheduler"), ("hami", "hami-scheduler")]
)
@pytest.mark.parametrize("given", [None, "", "default-scheduler", "its own"])
def test_the_backends_scheduler(backend: str, scheduler: str, given: str | None) -> None:
    """Filled in where nobody chose one."""
    raw = pod(QUARTER)
    if given is not None:
        raw["spec"]["schedulerName"] = scheduler if given == "its own" else given
    assert admitted(raw, backend)["spec"]["schedulerName"] == scheduler


def test_another_scheduler_is_refused_or_kept() -> None:
    """By policy; it does not know about shares."""
    raw = pod(QUARTER, schedulerName="volcano")
    assert refusals(raw) == [
        (
            'spec.schedulerName: "volcano" cannot place shares of GPUs; remove the field and '
            "gpu-fraction-scheduler is set (cluster setting policy_other_scheduler)"
        )
    ]
    kept = verdict(raw, other_scheduler="allow")
    assert not [op for op in kept.operations if op["path"] == "/spec/schedulerName"]


def test_a_backend_without_a_scheduler_takes_any() -> None:
    """Whole cards are known to every scheduler."""
    raw = pod({"gpu-fraction": "1"}, schedulerName="volcano")
    assert admitted(raw, "nvidia")["spec"]["schedulerName"] == "volcano"


@pytest.mark.parametrize(
    ("policy", "change"),
    [
        ("node_name", {"nodeName": "n"}),
        ("host_devices", {"volumes": [{"name": "h", "hostPath": {"path": "/dev"}}]}),
    ],
)
def test_policies_can_be_opened_one_by_one(policy: str, change: dict[str, Any]) -> None:
    """Each knob opens its own door only."""
    raw = pod(QUARTER, **change)
    assert len(refusals(raw)) == 1
    opened: dict[str, Any] = {policy: "allow"}
    assert verdict(raw, **opened).operations


# Pods of KAI-Scheduler.


def kai(annotations: Mapping[str, str] | None, *containers: Raw, **spec: Any) -> Raw:
    """A pod that names KAI's scheduler."""
    return pod(annotations, *containers, schedulerName="kai-scheduler", **spec)


def test_kais_pods_are_left_to_kai() -> None:
    """Its users write the same annotations, and values of its own."""
    assert verdict(kai({"gpu-fraction": "0.5", "gpu-memory": "nonsense to us"})) == Verdict(
        warnings=("gpu-fraction does not change pods that kai-scheduler schedules",)
    )
    assert verdict(kai(None)) == Verdict()


def test_which_schedulers_are_left_alone_is_configuration() -> None:
    """An empty list leaves none; the policy on other schedulers then holds."""
    raw = typed(kai(QUARTER))
    with pytest.raises(Refused, match="policy_other_scheduler"):
        admit(raw, BACKENDS["native"](CONFIG), Rules(left_to=frozenset()))
    other = typed(pod(QUARTER, schedulerName="other"))
    assert not admit(
        other, BACKENDS["native"](CONFIG), Rules(left_to=frozenset({"other"}))
    ).operations


def test_kais_pods_may_not_preset_a_node() -> None:
    """That goes past KAI too, so that its name would be a way round everything."""
    (told,) = refusals(kai(QUARTER, nodeName="n"))
    assert told.startswith("spec.nodeName: ")
    assert verdict(kai(QUARTER, nodeName="n"), node_name="allow").operations == []
    assert verdict(kai(None, nodeName="n")) == Verdict()


@pytest.mark.parametrize("key", [keys.REQUEST, keys.ASSIGNED])
def test_kais_name_does_not_open_system_annotations(key: str) -> None:
    """They mean the same whoever schedules the pod."""
    raw = kai({**QUARTER, key: "x"})
    assert refusals(raw) == [f"metadata.annotations[{key}]: only gpu-fraction sets it; remove it"]
    assert verdict(raw, trusted=True).operations == []


def test_kais_name_does_not_open_native_resources() -> None:
    """A pod that takes a native slice is ours to judge."""
    (told,) = refusals(kai(None, container("main", NATIVE, securityContext={"privileged": True})))
    assert told.startswith("spec.containers[0].securityContext.privileged")
    (told, *_) = refusals(kai(QUARTER, container("main", NATIVE)))
    assert told.startswith(
        f"spec.containers[0].resources[{keys.SLOT}]: requests a GPU in addition to"
    )


MAP = {"runai/shared-gpu-configmap": "p-x2x4x6x-shared-gpu"}


def told_by(name: str, config_map: str, key: str = "NVIDIA_VISIBLE_DEVICES") -> Raw:
    """A container whose cards are told by a ConfigMap, as KAI writes it."""
    source = {"configMapKeyRef": {"name": config_map, "key": key}}
    return container(name, env=[{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": source}])


@pytest.mark.parametrize(
    ("annotations", "at"),
    [
        (QUARTER, ("containers", 0)),
        ({"gpu-memory": "2048"}, ("containers", 0)),
        ({**QUARTER, "gpu-fraction-container-name": "side"}, ("containers", 1)),
        ({**QUARTER, "gpu-fraction-container-name": "setup"}, ("initContainers", 0)),
    ],
)
def test_kai_tells_the_container_it_gives_cards(
    annotations: dict[str, str], at: tuple[str, int]
) -> None:
    """By a reference to a ConfigMap of its own; in every other container it is the author's."""
    kinds = {"containers": ["main", "side"], "initContainers": ["setup", "more"]}
    for kind, names in kinds.items():
        for index, name in enumerate(names):
            made = kai({**annotations, **MAP}, container("main"), container("side"))
            made["spec"]["initContainers"] = [container("setup"), container("more")]
            mark = "i" if kind == "initContainers" else ""
            made["spec"][kind][index] = told_by(name, f"p-x2x4x6x-shared-gpu-{mark}{index}")
            if (kind, index) == at:
                assert verdict(made).operations == []
            else:
                (told,) = refusals(made)
                assert told.startswith(f"spec.{kind}[{index}].env[0]: NVIDIA_VISIBLE_DEVICES")


def test_kai_before_0_7_4_used_another_key() -> None:
    """Of the same ConfigMap."""
    told = told_by("main", "p-x2x4x6x-shared-gpu-0", "RUNAI-VISIBLE-DEVICES")
    assert verdict(kai({**QUARTER, **MAP}, told)).operations == []


@pytest.mark.parametrize(
    ("annotations", "told", "spec"),
    [
        pytest.param(None, told_by("main", "mine"), {}, id="asks-nothing-of-kai"),
        pytest.param(MAP, told_by("main", "p-x2x4x6x-shared-gpu-0"), {}, id="only-kais-mark"),
        pytest.param(QUARTER, told_by("main", "p-x2x4x6x-shared-gpu-0"), {}, id="no-mark-of-kais"),
        pytest.param(
            {"nvidia.com/container.main.gpu-memory.request": "2Gi", **MAP},
            told_by("main", "p-x2x4x6x-shared-gpu-0"),
            {},
            id="asks-nothing-of-an-older-kai",
        ),
        pytest.param({**QUARTER, **MAP}, told_by("main", "mine"), {}, id="another-map"),
        pytest.param(
            {**QUARTER, **MAP}, told_by("main", "p-x2x4x6x-shared-gpu-0", "all"), {}, id="key"
        ),
        pytest.param(
            {**QUARTER, **MAP},
            container("main", env=[{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"x": {}}}]),
            {},
            id="another-source",
        ),
        pytest.param(
            {**QUARTER, **MAP},
            told_by("main", "p-x2x4x6x-shared-gpu-0"),
            {"nodeName": "n"},
            id="kai-never-sees-it",
        ),
    ],
)
def test_a_reference_that_kai_did_not_write(
    annotations: dict[str, str] | None, told: Raw, spec: dict[str, Any]
) -> None:
    """The name of its scheduler alone is no way round, whether or not it runs in the cluster."""
    (line,) = refusals(kai(annotations, told, **spec), node_name="allow")
    assert line.startswith("spec.containers[0].env[0]: NVIDIA_VISIBLE_DEVICES may not be set")


def test_cards_that_are_written_out_in_a_pod_of_kais() -> None:
    """A literal is the author's, and harmless where it names none."""
    users = container("main", env=env(("NVIDIA_VISIBLE_DEVICES", "all"), ("GPU_PORTION", None)))
    for annotations in (None, {**QUARTER, **MAP}):
        (told,) = refusals(kai(annotations, users))
        assert told.startswith("spec.containers[0].env[0]: NVIDIA_VISIBLE_DEVICES may not be set")
    harmless = container("main", env=env(("NVIDIA_VISIBLE_DEVICES", "void")))
    assert not verdict(kai(None, harmless)).operations


# Warnings.


def test_rounding_is_said() -> None:
    """What the user wrote is no whole number of MiB."""
    warnings = verdict(pod({"gpu-memory": "8G"})).warnings
    assert warnings == (
        "gpu-memory 8G is rounded up to 7630 MiB",
        "container main: 7630 MiB comes with 46.5% of a GPU's compute",
    )


@pytest.mark.parametrize(
    ("raw", "uses"),
    [
        (pod(), False),
        (pod({"a": "b"}), False),
        (pod(QUARTER), True),
        (pod({"gpu-typo": ""}), True),
        (pod({keys.ASSIGNED: ""}), True),
        (pod(None, container("main", {"cpu": "1"})), False),
        (pod(None, container("main", {"nvidia.com/gpu": "1"})), False),
        (pod(None, container("main", {keys.SLOT: "1"})), True),
        (pod(None, init=[container("i", {keys.MEMORY_MIB: "1"})]), True),
    ],
)
def test_whose_pods_are_judged(raw: Raw, uses: bool) -> None:
    """An annotation of ours, or a native resource in any container."""
    assert uses_gpu(typed(raw)) is uses
