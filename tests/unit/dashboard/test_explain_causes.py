"""Each cause is found in what the cluster says, and in nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from gpu_fraction.dashboard import objects
from gpu_fraction.dashboard.explain.causes import CAUSES
from gpu_fraction.dashboard.explain.facts import Facts, Hook
from gpu_fraction.dashboard.explain.report import Report, report_of
from gpu_fraction.dashboard.snapshot import Gap, Part, Snapshot
from gpu_fraction.domain import dra, inventory, keys
from gpu_fraction.domain.assignment import CardShare
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.request_annotation import render
from tests.builders.cards import card
from tests.builders.views import (
    CREATED,
    KINDS,
    Raw,
    claim,
    device_slice,
    gpu_node,
    gpu_pod,
    quota,
)

LATER = datetime.fromisoformat(CREATED) + timedelta(minutes=1)
HOOK = Hook(
    "mutate.gpu-fraction.dev",
    "gpu-fraction",
    {
        "matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]},
            {"key": "gpu", "operator": "NotIn", "values": ["off"]},
        ]
    },
)


def snapshot(found: Sequence[Raw], **parts: Any) -> Snapshot:
    """These objects; ``parts`` replace what was read."""
    read: dict[str, list[object]] = {name: [] for name, _ in KINDS.values()}
    for raw in found:
        name, kind = KINDS[raw["kind"]]
        read[name].append(msgspec.json.decode(msgspec.json.encode(raw), type=kind))
    whole = {name: Part(tuple(items)) for name, items in read.items()}
    return Snapshot(LATER, **{**whole, **parts})


def event(reason: str, message: str, at: str = CREATED, **fields: Any) -> objects.Event:
    """An event about the pod, or about its owner."""
    return objects.Event(reason=reason, message=message, last_timestamp=at, **fields)


def waiting(message: str = "0/1 nodes are available", milli: int = 500, **spec: Any) -> Raw:
    """A pod that our scheduler could not place."""
    word = {"type": "PodScheduled", "status": "False", "message": message}
    pod = gpu_pod("p", milli=milli, conditions=[{**word, "lastTransitionTime": CREATED}])
    pod["spec"] |= spec
    return pod


def booked(mib: str) -> Raw:
    """A share that the webhook has turned into MiB of a larger card."""
    pod = waiting()
    pod["spec"]["containers"][0]["resources"]["limits"][keys.MEMORY_MIB] = mib
    return pod


def asking(**fields: Any) -> Raw:
    """A waiting pod whose request has more than a share."""
    pod = waiting()
    part = Slice("main", cards=fields.pop("cards", 1), core_milli=500, memory_milli=500)
    request = Request((part,), **fields)
    pod["metadata"]["annotations"][keys.REQUEST] = render(request, keys.NATIVE)
    amount = str(500 * part.cards)
    pod["spec"]["containers"][0]["resources"]["limits"][keys.CORE_MILLI] = amount
    return pod


def written(annotations: Raw, **spec: Any) -> Raw:
    """A pod as its author wrote it."""
    pod = gpu_pod("p")
    pod["metadata"]["annotations"] = annotations
    pod["spec"] = {"containers": [{"name": "main", "image": "i"}], **spec}
    return pod


def placed(node: str = "n", phase: str = "Pending", **status: Any) -> Raw:
    """A pod with a node and a card."""
    pod = gpu_pod("p", CardShare("GPU-0", 500, 8192), node=node, phase=phase)
    pod["status"] |= status
    return pod


def summed(core_milli: str, **fields: Any) -> Raw:
    """A node whose sum of compute is counted."""
    made = node(**fields)
    made["status"]["allocatable"][keys.CORE_MILLI] = core_milli
    return made


def container(reason: str, message: str = "") -> Raw:
    """The status of a pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"name": "main", "state": state}]}


def taking(uuid: str, milli: int, where: str = "n") -> Raw:
    """Another pod with a part of a card."""
    share = CardShare(uuid, milli, 16384 * milli // 1000)
    return gpu_pod(f"other-{uuid}-{milli}", share, node=where, milli=milli)


def claiming(message: str = "0/1 nodes are available: 1 cannot allocate all claims.") -> Raw:
    """A pod of backend ``dra`` that waits."""
    pod = waiting(message, resourceClaims=[{"name": "g", "resourceClaimTemplateName": "t"}])
    del pod["spec"]["schedulerName"], pod["spec"]["containers"][0]["resources"]
    request = Request((Slice("main", core_milli=500, memory_milli=500),))
    pod["metadata"]["annotations"][keys.REQUEST] = render(request, "dra")
    pod["status"]["resourceClaimStatuses"] = [{"name": "g", "resourceClaimName": "p-g"}]
    return pod


def node(*cards: inventory.Card, name: str = "n", offers: bool = True, **spec: Any) -> Raw:
    """A node whose daemon runs, or does not."""
    made = gpu_node(name, *cards or (card(0),), **spec)
    made["status"]["allocatable"] = {
        keys.SLOT: "32" if offers else "0",
        keys.MEMORY_MIB: str(16384 * max(1, len(cards))),
    }
    return made


@dataclass
class Case:
    """One cause and what shows it.

    Attributes:
        cause: Its name.
        pod: The pod, or the pod that an owner would make.
        cluster: What else there is.
        says: A part of what is said.
        facts: Further facts.
    """

    cause: str
    pod: Raw
    cluster: Sequence[Raw] = ()
    says: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def report(self) -> Report:
        """The explanation."""
        owner = self.facts.get("exists") is False
        existing = [] if owner else [self.pod]
        parts = {name: self.facts.pop(name) for name in ("pods", "nodes") if name in self.facts}
        return report_of(
            Facts(
                snapshot([*self.cluster, *existing], **parts),
                kind="ReplicaSet" if owner else "Pod",
                namespace="team-a",
                name="p",
                raw=self.pod,
                **self.facts,
            )
        )


def refused(message: str) -> dict[str, Any]:
    """The facts of an owner that could not create its pod."""
    told = event("FailedCreate", f"Error creating: {message}", reporting_component="rs")
    return {"exists": False, "events": (told,)}


OURS = 'admission webhook "validate.gpu-fraction.dev" denied the request: '
PLAIN = written({keys.FRACTION: "0.5"})
PRESSURE = {"key": "gpu", "value": "other", "effect": "NoSchedule"}

CASES = [
    # refused
    Case(
        "webhook-down",
        PLAIN,
        facts=refused(
            'Internal error occurred: failed calling webhook "mutate.gpu-fraction.dev": connection'
            " refused"
        ),
    ),
    Case("annotation-misspelt", written({"gpu-fractoin": "0.5"}), facts={"exists": False}),
    Case("value-out-of-range", written({keys.FRACTION: "1.5"}), facts={"exists": False}),
    Case(
        "value-out-of-range",
        PLAIN,
        says="metadata.annotations[gpu-fraction]",
        facts=refused(
            OURS
            + 'metadata.annotations[gpu-fraction]: "1.5" is more than one GPU but not a whole '
            "number; allowed: a share"
        ),
    ),
    Case(
        "quota-exceeded",
        PLAIN,
        says="exceeded GPU quota: q, requested: cores=500m",
        facts=refused(OURS + "exceeded GPU quota: q, requested: cores=500m, used: cores=1"),
    ),
    Case(
        "quota-needs-size",
        PLAIN,
        facts=refused(OURS + "failed GPU quota: q: must specify memory for: main (no GPU's"),
    ),
    Case("quota-per-pod", PLAIN, facts=refused(OURS + "outside GPU quota: q, requested: cores=1")),
    Case("quota-missing", PLAIN, facts=refused(OURS + "insufficient GPU quota: no GPUQuota")),
    Case("quota-unusable", PLAIN, facts=refused(OURS + "GPU quota q is invalid: spec.hard")),
    Case(
        "isolation-refused",
        PLAIN,
        facts=refused(
            OURS + 'metadata.annotations[gpu-fraction.dev/isolation]: "required" cannot be '
            "honoured: whole GPUs do not isolate memory; allowed: preferred, none"
        ),
    ),
    Case(
        "larger-than-any-card",
        PLAIN,
        facts=refused(OURS + "requests 9 MiB on one GPU, but the largest eligible GPU has 8 MiB"),
    ),
    Case(
        "rewrite-undone",
        PLAIN,
        facts=refused(OURS + "pod: does not match its GPU annotations (missing: /spec/x): gpu"),
    ),
    Case("webhook-refused", PLAIN, facts=refused(OURS + "spec.nodeName: is preset")),
    Case(
        "resource-quota",
        PLAIN,
        facts=refused('pods "p-1" is forbidden: exceeded quota: q, requested: pods=1'),
    ),
    Case(
        "pod-security",
        PLAIN,
        facts=refused('pods "p-1" is forbidden: violates PodSecurity "restricted:latest": x'),
    ),
    Case("other-admission", PLAIN, facts=refused('admission webhook "x.example" denied: no')),
    Case(
        "not-wanted",
        PLAIN,
        says="spec.replicas is 0",
        facts=refused(OURS + "exceeded GPU quota: q") | {"idle": "spec.replicas is 0"},
    ),
    Case("not-created", PLAIN, facts=refused('serviceaccount "x" not found')),
    # never rewritten
    Case(
        "namespace-excluded",
        PLAIN,
        says="gpu NotIn (off)",
        facts={"labels": {"gpu": "off"}, "hooks": (HOOK,)},
    ),
    Case("never-rewritten", PLAIN, says="never seen", facts={"labels": {}, "hooks": (HOOK,)}),
    Case("never-rewritten", PLAIN, says="registered", facts={"labels": {}, "hooks": ()}),
    Case("never-rewritten", PLAIN, says="never seen"),
    Case("left-to-scheduler", written({keys.FRACTION: "0.5"}, schedulerName="kai-scheduler")),
    Case("annotation-misspelt", written({"gpu_fraction": "0.5"}), says="gpu-fraction"),
    Case("annotation-misspelt", written({"nvidia.com/gpu-fraction": "0.5"}), says="gpu-fraction"),
    # waiting for the scheduler
    Case(
        "gated", waiting(schedulingGates=[{"name": "example.com/hold"}]), says="example.com/hold"
    ),
    Case(
        "claim-missing",
        {**claiming(), "status": {"phase": "Pending"}},
        says="ResourceClaimTemplate t",
        facts={"templates": frozenset({"other"})},
    ),
    Case(
        "claim-missing",
        {**claiming(), "status": {"phase": "Pending"}},
        facts={"events": (event("FailedResourceClaimCreation", "template t not found"),)},
    ),
    Case(
        "claim-missing",
        written({}, resourceClaims=[{"name": "g", "resourceClaimName": "mine"}]),
        says="ResourceClaim mine",
    ),
    Case("scheduler-down", gpu_pod("p"), [node()], says="gpu-fraction-scheduler"),
    Case(
        "extender-down",
        waiting('Post "https://127.0.0.1:9444/filter": dial tcp: connection refused'),
        [node()],
    ),
    Case(
        "binding-refused",
        waiting('binding to n: admission webhook "changes.gpu-fraction.dev" denied the request'),
        [node()],
    ),
    Case(
        "device-class-missing",
        claiming("request gpu: device class fraction.gpu-fraction.dev does not exist"),
        facts={"templates": frozenset({"t"})},
    ),
    Case("daemon-down", waiting(), [], says="no node has GPUs for backend native"),
    Case("daemon-down", waiting(), [node(offers=False)], says="slot"),
    Case("daemon-down", claiming(), [gpu_node("n", card(0))], says="ResourceSlice"),
    Case("no-node-with-model", asking(models=("H100",)), [node()], says="Tesla T4"),
    Case("uuid-unknown", asking(uuids=("GPU-9",)), [node()]),
    Case("isolation-not-offered", asking(isolation="required"), [node()]),
    Case("too-few-cards", asking(cards=2), [node()], says="2 GPUs"),
    Case(
        "card-sick",
        waiting(),
        [node(card(0, healthy=False, health_reason="XID 79"), offers=False)],
        says="node n",
    ),
    Case("node-cordoned", waiting(), [node(unschedulable=True)], says="node n"),
    Case("node-not-ready", waiting(), [node(ready=False)]),
    Case("node-tainted", waiting(), [node(taints=[PRESSURE])], says="gpu=other:NoSchedule"),
    Case("node-selector", waiting(nodeSelector={"zone": "a"}), [node()], says="zone"),
    Case(
        "resource-short",
        booked("40960"),
        [node()],
        says="gpu-fraction.dev/memory-mib: 16384 free of 16384, 40960 asked",
    ),
    Case(
        "cards-fragmented",
        waiting(milli=800),
        [node(card(0), card(1)), taking("GPU-0", 300), taking("GPU-1", 400)],
        says="the largest share that fits now is 0.7, on node n",
    ),
    Case(
        "cards-full",
        waiting(milli=800),
        [node(), taking("GPU-0", 300)],
        says="the largest share that fits now is 0.7",
    ),
    Case(
        "cards-full",
        waiting(milli=800),
        [summed("1000"), taking("GPU-0", 300)],
        says="the largest share that fits now is 0.7",
    ),
    Case(
        "cards-full",
        waiting(milli=800),
        [summed("500"), taking("GPU-0", 300)],
        says="the largest share that fits now is 0.2",
    ),
    Case(
        "cards-full",
        waiting(milli=800),
        [node(), taking("GPU-0", 1000), node(card(9), name="z"), taking("GPU-9", 300, "z")],
        says="11469 MiB and 700 milli-cores free",
    ),
    Case(
        "not-looked-again",
        claiming(),
        [gpu_node("n", card(0)), device_slice("n", card(0))],
        says=f"card 0 (GPU-0) of node n; the scheduler has not looked again since {CREATED}",
    ),
    Case("scheduler-refuses", waiting("0/1 nodes: 1 Insufficient cpu"), [node()], says="cpu"),
    # on the node
    Case(
        "kubelet-refused",
        placed(phase="Failed", reason="UnexpectedAdmissionError", message="no slot"),
        [node()],
    ),
    Case(
        "claim-not-prepared",
        placed(),
        [node()],
        facts={"events": (event("FailedPrepareDynamicResources", "connection refused"),)},
    ),
    Case(
        "slice-refused",
        placed(),
        [node()],
        says="CardFull",
        facts={
            "events": (
                event(
                    "CardFull",
                    "card 0: 10 MiB free",
                    type="Warning",
                    reporting_component="gpu-fraction-node-daemon",
                ),
            )
        },
    ),
    Case(
        "cdi-off",
        placed(phase="Running"),
        [node()],
        facts={"node_events": (event("ContainerRuntimeMayIgnoreCDI", "containerd before 2.0"),)},
    ),
    Case(
        "cdi-unresolvable",
        placed(**container("CreateContainerError", "unresolvable CDI devices gpu-fraction.dev/s")),
        [node()],
    ),
    Case("image-missing", placed(**container("ImagePullBackOff", "back-off")), [node()]),
    Case("container-fails", placed(phase="Running", **container("CrashLoopBackOff")), [node()]),
    Case(
        "sandbox-fails",
        placed(),
        [node()],
        facts={"events": (event("FailedCreatePodSandBox", "no runtime"),)},
    ),
    Case("ended-badly", placed(phase="Failed", reason="Evicted"), [node()], says="Evicted"),
    # quota
    Case(
        "not-counted",
        placed(phase="Running"),
        [
            node(),
            quota(
                "q",
                {"cores": "1"},
                {"cores": "0"},
                status={"reserved": [{"podUID": "uid-team-a-p", "cores": "500m"}]},
            ),
        ],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.cause)
def test_a_cause_is_found_first_and_said(case: Case) -> None:
    """With evidence, an action and the step that it holds up."""
    report = case.report()
    names = [one.cause.name for one in report.findings]
    assert names[:1] == [case.cause], names
    first = report.findings[0]
    assert case.says in first.says
    assert all(e.object and e.field for e in first.evidence)
    step = report.steps[first.cause.step - 1]
    assert step.state == first.cause.state
    assert [s.number for s in report.steps] == [*range(1, 10)]
    harmless = {"cdi-off", "not-counted"}
    assert report.exit_code == (0 if case.cause in harmless else 1)


def test_every_cause_but_one_of_another_stack_is_tested() -> None:
    """The one has a test of its own."""
    assert {case.cause for case in CASES} == CAUSES.keys() - {
        "resource-not-offered",
        "card-too-small",
    }


def test_a_card_that_is_too_small_says_which_is_the_largest() -> None:
    """The share is an amount of memory."""
    pod = waiting()
    request = Request((Slice("main", memory_mib=20000),))
    pod["metadata"]["annotations"][keys.REQUEST] = render(request, keys.NATIVE)
    pod["spec"]["containers"][0]["resources"]["limits"] = {
        keys.SLOT: "1",
        keys.MEMORY_MIB: "20000",
    }
    report = Case("card-too-small", pod, [node()]).report()
    assert report.findings[0].cause.name == "card-too-small"
    assert any("16384 MiB" in e.text for e in report.findings[0].evidence)


def test_a_resource_of_another_stack_that_no_node_offers() -> None:
    """Its device plugin is down, whatever our cards say."""
    pod = written({})
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}
    ]
    report = Case("resource-not-offered", pod, [node()]).report()
    assert [f.cause.name for f in report.findings] == ["resource-not-offered"]
    assert "nvidia.com/gpu" in report.findings[0].says


def test_a_pod_that_runs_has_nothing_wrong() -> None:
    """Every step but the last is done, and its card is named."""
    report = Case("", placed(phase="Running"), [node()]).report()
    assert not report.findings
    assert report.exit_code == 0
    assert [step.state for step in report.steps] == ["done"] * 8 + ["waiting"]
    assert "GPU-0 of n" in report.verdict


def test_a_pod_that_has_just_begun_to_wait_is_not_explained_by_a_dead_scheduler() -> None:
    """A scheduler may look in the next second."""
    pod = gpu_pod("p")
    pod["metadata"]["creationTimestamp"] = LATER.isoformat()
    report = Case("", pod, [node()]).report()
    assert not report.findings
    assert report.exit_code == 1
    assert "nothing is wrong so far" in report.verdict


def test_a_pod_that_the_webhook_never_saw_is_judged_by_its_rules() -> None:
    """It will be refused when it is created again."""
    report = Case("", written({"gpu-fractoin": "0.5"})).report()
    first, second, *_ = report.findings
    assert (first.cause.name, second.cause.name) == ("never-rewritten", "annotation-misspelt")
    assert "did you mean" in second.says


def test_a_node_that_a_scheduler_chose_is_no_fault_of_the_author() -> None:
    """The webhook refuses a preset node, but this one was not."""
    pod = written({keys.FRACTION: "0.5"}, nodeName="n")
    pod["status"] = {"phase": "Running"}
    report = Case("", pod, [node()]).report()
    assert [one.cause.name for one in report.findings] == ["never-rewritten"]
    assert report.exit_code == 1


def test_without_the_right_to_read_nodes_only_the_scheduler_is_quoted() -> None:
    """Nothing is said of cards that nobody has seen."""
    nodes: Part[objects.Node] = Part(gap=Gap("nodes", "forbidden", "no"))
    report = Case("", waiting("0/9 nodes"), facts={"nodes": nodes}).report()
    assert [one.cause.name for one in report.findings] == ["scheduler-refuses"]


def test_a_finished_pod_is_done() -> None:
    """Also its last step."""
    report = Case("", placed(phase="Succeeded"), [node()]).report()
    assert report.exit_code == 0
    assert [step.state for step in report.steps] == ["done"] * 9


def test_room_that_is_taken_by_a_claim_is_no_room() -> None:
    """The claims' allocations count against the slices."""
    held = claim("c", gpu_pod("q"), "n", "GPU-0", 700, 700_000)
    report = Case(
        "", claiming(), [gpu_node("n", card(0)), device_slice("n", card(0)), held]
    ).report()
    assert report.findings[0].cause.name == "cards-full"
    assert "0.3" in report.findings[0].says


def test_room_is_not_certain_where_pods_were_not_read() -> None:
    """The answer says so."""
    pods = Part(
        tuple(snapshot([claiming()]).pods.items), gap=Gap("pods", "forbidden", "no", ("team-a",))
    )
    cluster = [gpu_node("n", card(0)), device_slice("n", card(0))]
    report = Case("", claiming(), cluster, facts={"pods": pods}).report()
    assert "as far as" in report.findings[0].says
    assert report.gaps == ("pods: no",)


def test_a_pod_that_fits_on_a_tainted_node_and_finds_another_full() -> None:
    """The taint is what to look at first, then what is free elsewhere."""
    cluster = [
        node(card(5), name="t", taints=[PRESSURE]),
        node(),
        taking("GPU-0", 900),
    ]
    report = Case("", waiting(), cluster).report()
    assert [one.cause.name for one in report.findings] == ["node-tainted", "cards-full"]
    assert "0.1, on node n" in report.findings[1].says


def test_a_model_that_only_a_tainted_node_has_is_there() -> None:
    """The other nodes' models do not matter."""
    other = node(card(5, model="NVIDIA H100"), name="t", taints=[PRESSURE])
    report = Case("", asking(models=("H100",)), [other, node()]).report()
    assert [one.cause.name for one in report.findings] == ["node-tainted"]


AFFINITY = "requiredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(
    ("pod", "cluster"),
    [
        (waiting(nodeSelector={"zone": "a"}), [node(), taking("GPU-0", 900)]),
        (waiting(), [node(taints=[PRESSURE]), taking("GPU-0", 900)]),
    ],
    ids=["no node is chosen", "every node is tainted"],
)
def test_full_cards_are_not_the_first_reason_where_no_node_takes_the_pod(
    pod: Raw, cluster: list[Raw]
) -> None:
    """The end of other pods would not help it."""
    report = Case("", pod, cluster).report()
    assert report.findings[0].cause.name in {"node-selector", "node-tainted"}
    assert "its cards fit" not in report.findings[0].says


@pytest.mark.parametrize(
    "term",
    [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
        {"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["4"]}]},
    ],
    ids=["by name, as of a DaemonSet", "by label"],
)
def test_a_node_outside_the_affinity_of_a_pod_does_not_matter_to_it(term: Raw) -> None:
    """The room there is no room, and its taint no reason."""
    full = node()
    full["metadata"]["labels"] = {"size": "5"}
    other = node(card(5), name="o", taints=[PRESSURE])
    affinity = {"nodeAffinity": {AFFINITY: {"nodeSelectorTerms": [term]}}}
    cluster = [full, other, taking("GPU-0", 900)]
    report = Case("", waiting(affinity=affinity), cluster).report()
    assert [one.cause.name for one in report.findings] == ["cards-full"]
    alone = Case("", waiting(affinity=affinity), [other]).report()
    assert alone.findings[0].cause.name == "node-selector"


def test_tolerated_taints_are_no_barrier() -> None:
    """As the kubelet and the scheduler see it."""
    pod = waiting(tolerations=[{"key": "gpu", "operator": "Exists"}])
    report = Case("", pod, [node(taints=[PRESSURE])]).report()
    assert [one.cause.name for one in report.findings] == ["scheduler-refuses"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v":9}'])
def test_annotations_that_cannot_be_read_raise_nothing(text: str) -> None:
    """Whoever wrote them."""
    pod = waiting()
    pod["metadata"]["annotations"] |= {keys.REQUEST: text, keys.ASSIGNED: text}
    report = Case("", pod, [gpu_node("n", text=text)]).report()
    assert report.exit_code == 1


def test_the_record_has_every_part() -> None:
    """For programs."""
    record = Case("", waiting(), [node(unschedulable=True)]).report().record()
    (cause,) = record["causes"]
    assert cause["cause"] == "node-cordoned"
    assert cause["see"] == "docs/operations.md#were-unschedulable"
    assert cause["evidence"][0] == {
        "object": "Node n",
        "field": "spec.unschedulable",
        "text": "spec.unschedulable is true",
        "time": "",
    }
    assert len(record["steps"]) == 9
    assert dra.DRIVER not in str(record["notRead"])
