"""Pods rendered for KAI-Scheduler, and what is left to it."""

import copy
import json
import re
from pathlib import Path

import jsonpatch
import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain.backends import STACKS, demand
from gpu_fraction.domain.demand import Demand
from gpu_fraction.domain.pod import containers
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.settings.option import SettingsError
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import Answer, decode, encode
from tests.builders.pods import Raw, container, pod, typed
from tests.support.reviews import body, patch_of, review, rewriting
from tests.unit.domain.verdicts import QUARTER, refusals, verdict

CONFIGURATIONS = Path(__file__).parents[3] / "deploy" / "webhook" / "configurations.yaml"
HALVES = {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"}
WORK = "gpu-fraction.dev/container.work"
VOID = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
CARD_IN_ANOTHER = container("b", {"nvidia.com/gpu": "1"})


def answer(raw: Raw, namespace: str = "team-a", **settings: str) -> Answer:
    """The webhook's, in a cluster whose namespace ``ml`` chose KAI."""
    decider = Decider(
        rewriting(**(settings or {"backend": "kai"})), backend_label={"ml": "kai"}.get
    )
    return decider.mutate(decode(body(review(raw, namespace=namespace))))


def mutated(raw: Raw, namespace: str = "team-a", **settings: str) -> Raw:
    """The pod after this project's webhook."""
    response = json.loads(encode("u-1", answer(raw, namespace, **settings)))["response"]
    assert response["allowed"], response
    made: Raw = jsonpatch.JsonPatch(patch_of(response)).apply(copy.deepcopy(raw))
    return made


def after_kai(raw: Raw) -> Raw:
    """The pod after KAI's webhook, by what tests/data/peers/kai.json recorded of it."""
    made = copy.deepcopy(raw)
    given = made["metadata"]["annotations"]
    if not {"gpu-fraction", "gpu-memory"} & given.keys():
        return made
    given["runai/shared-gpu-configmap"] = "p-x2x4x6x-shared-gpu"
    made["spec"].setdefault("runtimeClassName", "nvidia")
    first = made["spec"]["containers"][0]["name"]
    (at,) = (
        at
        for at in containers(typed(made))
        if at.container.name == given.get("gpu-fraction-container-name", first)
    )
    mark = "i" if at.kind == "initContainers" else ""
    told = f"p-x2x4x6x-shared-gpu-{mark}{at.index}"
    made["spec"].setdefault("volumes", []).append(
        {"name": f"{told}-vol", "configMap": {"name": told}}
    )
    target = made["spec"][at.kind][at.index]
    names = ("NVIDIA_VISIBLE_DEVICES", "RUNAI_NUM_OF_GPUS", "GPU_PORTION")
    target["env"] = [
        *(one for one in target.get("env", []) if one["name"] not in names),
        *(
            {"name": name, "valueFrom": {"configMapKeyRef": {"name": told, "key": name}}}
            for name in names
        ),
    ]
    return made


def own(raw: Raw) -> dict[str, str]:
    """The user's annotations, without the request that the webhook wrote."""
    given: dict[str, str] = raw["metadata"]["annotations"]
    return {key: value for key, value in given.items() if key != "gpu-fraction.dev/request"}


FORMS = [
    pytest.param({"gpu-fraction": "0.25"}, {"gpu-fraction": "0.25"}, "main", id="fraction"),
    pytest.param({"gpu-fraction": "50%"}, {"gpu-fraction": "0.5"}, "main", id="percent"),
    pytest.param({"gpu-fraction": ".5"}, {"gpu-fraction": "0.5"}, "main", id="no-zero"),
    pytest.param({"gpu-fraction": "0.3333"}, {"gpu-fraction": "0.333"}, "main", id="finer"),
    pytest.param({"gpu-memory": "4Gi"}, {"gpu-memory": "4096"}, "main", id="unit"),
    pytest.param({"gpu-memory": "04096"}, {"gpu-memory": "4096"}, "main", id="leading-zero"),
    pytest.param(HALVES, HALVES, "main", id="two-cards"),
    pytest.param(
        {"gpu-memory": "8Gi", "gpu-fraction-num-devices": "02"},
        {"gpu-memory": "8192", "gpu-fraction-num-devices": "2"},
        "main",
        id="memory-of-two-cards",
    ),
    pytest.param(
        {"gpu-fraction": "0.5", "gpu-cores": "50%"}, {"gpu-fraction": "0.5"}, "main", id="cores"
    ),
    pytest.param({WORK: "0.25"}, {"gpu-fraction": "0.25"}, "work", id="named"),
    pytest.param(
        {"gpu-fraction": "0.25", "gpu-fraction-container-name": "work"},
        {"gpu-fraction": "0.25"},
        "work",
        id="container-name",
    ),
    pytest.param(
        {"gpu-fraction.dev/container.proxy": "0.25"},
        {"gpu-fraction": "0.25"},
        "proxy",
        id="sidecar",
    ),
]
TWO = (container("main"), container("work"))
PROXY = container("proxy", restartPolicy="Always")


@pytest.mark.parametrize(("asked", "share", "gets"), FORMS)
def test_a_share_in_kais_spelling(asked: dict[str, str], share: dict[str, str], gets: str) -> None:
    """Only what KAI takes is left, with the container by its name and no card until KAI's turn."""
    made = mutated(pod(asked, *TWO, init=[PROXY]))
    assert own(made) == {**share, "gpu-fraction-container-name": gets}
    assert made["spec"]["schedulerName"] == "kai-scheduler"
    for at in containers(typed(made)):
        assert at.container.resources is None
        found = made["spec"][at.kind][at.index].get("env", [])
        assert (VOID in found) == (at.container.name == gets)


@pytest.mark.parametrize(("asked", "share", "gets"), FORMS)
def test_the_second_call_after_kais_webhook_changes_nothing(
    asked: dict[str, str], share: dict[str, str], gets: str
) -> None:
    """KAI changes the pod after us, so the API server asks again; both calls end there."""
    del share, gets
    made = mutated(pod(asked, *TWO, init=[PROXY]))
    assert mutated(made) == made
    changed = after_kai(made)
    assert VOID not in json.loads(json.dumps(changed))["spec"]["containers"][0].get("env", [])
    assert mutated(changed) == changed
    decider = Decider(rewriting(backend="kai"))
    assert decider.validate(decode(body(review(changed)))).allowed


@pytest.mark.parametrize(
    ("asked", "cards"),
    [
        ({"gpu-fraction": "1"}, {"main": "1"}),
        ({"gpu-fraction": "100%"}, {"main": "1"}),
        ({"gpu-fraction": "2"}, {"main": "2"}),
        ({"gpu-fraction": "1", "gpu-fraction-num-devices": "2"}, {"main": "2"}),
        ({"gpu-fraction": "0.9996"}, {"main": "1"}),
        ({"gpu-fraction": "1", WORK: "2"}, {"main": "1", "work": "2"}),
    ],
)
def test_whole_cards(asked: dict[str, str], cards: dict[str, str]) -> None:
    """By the resource; KAI refuses ``gpu-fraction`` of 1, so the wish stays in our own key."""
    made = mutated(pod(asked, *TWO))
    assert own(made) == {f"gpu-fraction.dev/container.{name}": n for name, n in cards.items()}
    for one in made["spec"]["containers"]:
        wanted = {"nvidia.com/gpu": cards[one["name"]]} if one["name"] in cards else {}
        found = one.get("resources", {})
        assert found.get("limits", {}) == found.get("requests", {}) == wanted
        assert VOID not in one.get("env", [])
    assert mutated(made) == made == after_kai(made)
    total = sum(map(int, cards.values()))
    assert demand(typed(made)) == Demand(total, 1000 * total, open_memory_milli=1000 * total)


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"gpu-fraction": "0.25", WORK: "0.25"}, WORK),
        ({"gpu-fraction": "0.25", WORK: "1"}, WORK),
        (
            {
                "gpu-memory": "4Gi",
                "gpu-fraction-container-name": "work",
                "gpu-fraction.dev/container.main": "0.5",
            },
            "gpu-memory",
        ),
    ],
)
def test_a_second_share_or_a_card_beside_a_share(asked: dict[str, str], key: str) -> None:
    """KAI has one share a pod; the refusal names an annotation that the pod has."""
    assert answer(pod(asked, *TWO, init=[PROXY])).message == (
        f"metadata.annotations[{key}]: cannot be honoured: KAI-Scheduler gives a pod one share of "
        "a GPU, or whole GPUs; allowed: a share for one container, or whole GPUs for several"
    )


def test_a_share_beside_a_card_by_its_resource() -> None:
    """KAI refuses it in any container."""
    (told,) = refusals(pod(QUARTER, container("a"), CARD_IN_ANOTHER), "kai")
    assert told.startswith("spec.containers[1].resources[nvidia.com/gpu]: requests a GPU in add")


def test_fraction_and_memory() -> None:
    """Compute of its own is nothing that KAI has."""
    (told,) = refusals(pod({"gpu-fraction": "0.5", "gpu-memory": "4Gi"}), "kai")
    assert told.startswith("metadata.annotations[gpu-memory]: cannot be honoured")


@pytest.mark.parametrize(
    ("asked", "key"), [({"gpu-fraction": "0.0094"}, "gpu-fraction"), ({WORK: "0.9%"}, WORK)]
)
def test_a_share_that_kai_tells_as_nothing(asked: dict[str, str], key: str) -> None:
    """Below a hundredth; its author reads which annotation it is."""
    (told,) = refusals(pod(asked, *TWO), "kai")
    assert told.startswith(f"metadata.annotations[{key}]: is too small for KAI-Scheduler")


@pytest.mark.parametrize(
    ("memory", "passes"), [("81500", True), ("81501", False), ("81559", False), ("81560", False)]
)
def test_memory_above_what_kai_counts(memory: str, passes: bool) -> None:
    """Cards are rounded down to 100 MiB there; such a pod would wait for ever."""
    found = answer(pod({"gpu-memory": memory}), backend="kai", gpu_memory_mib="81559Mi")
    assert found.allowed == passes


@pytest.mark.parametrize(
    ("fraction", "told"), [("0.333", "0.33"), ("0.335", "0.34"), ("0.345", "0.34")]
)
def test_hundredths_are_a_warning(fraction: str, told: str) -> None:
    """The container is told what was recorded of KAI; the room on the card is exact."""
    warnings = answer(pod({"gpu-fraction": fraction})).warnings
    text = f"KAI-Scheduler keeps {fraction} of a GPU for it and tells it {told}"
    assert [line for line in warnings if "KAI" in line] == [f"container main: {text}"]
    assert not [line for line in answer(pod(QUARTER)).warnings if "KAI" in line]


def test_the_queue_is_the_authors_then_the_settings() -> None:
    """A pod without either goes to KAI's own default."""
    mine = pod(QUARTER)
    mine["metadata"]["labels"] = {"kai.scheduler/queue": "mine"}
    found = [
        mutated(raw, backend="kai", **more)["metadata"].get("labels", {})
        for raw, more in ((mine, {"kai_queue": "team"}), (pod(QUARTER), {"kai_queue": "team"}))
    ]
    assert found == [{"kai.scheduler/queue": "mine"}, {"kai.scheduler/queue": "team"}]
    assert "labels" not in mutated(pod(QUARTER))["metadata"]


BY_HAND = [
    (QUARTER, Demand(1, 250, open_memory_milli=250)),
    (HALVES, Demand(2, 1000, open_memory_milli=1000)),
    ({"gpu-memory": "4096"}, Demand(1, 0, 4096, open_core_mib=4096, open_cards=1)),
    ({"gpu-fraction": ".5"}, Demand(1, 500, open_memory_milli=500)),
]


@pytest.mark.parametrize(("annotations", "cost"), BY_HAND)
def test_pods_written_for_kai(annotations: dict[str, str], cost: Demand) -> None:
    """Where KAI is the backend they are read like all others; elsewhere they are left to it."""
    raw = pod(annotations, schedulerName="kai-scheduler")
    rendered = mutated(raw)
    assert "gpu-fraction.dev/request" in rendered["metadata"]["annotations"]
    assert mutated(raw, backend="native") == raw
    assert demand(typed(raw)) == demand(typed(rendered)) == cost


@pytest.mark.parametrize(
    "annotations",
    [
        {"gpu-fraction": "5e-1"},
        {"gpu-fraction": "lots"},
        {"gpu-memory": "x"},
        {"gpu-fraction": "2"},
    ],
)
def test_what_cannot_be_read_is_charged_as_a_card(annotations: dict[str, str]) -> None:
    """KAI may take it: never less than it hands out."""
    raw = typed(pod(annotations, *TWO, schedulerName="kai-scheduler"))
    assert demand(raw) == Demand(1, 1000, open_memory_milli=1000)


def test_memory_beyond_all_cards_is_counted_within_bounds() -> None:
    """KAI's webhook takes it, and its scheduler never places it."""
    raw = typed(pod({"gpu-memory": "9" * 30}, schedulerName="kai-scheduler"))
    assert demand(raw).memory_mib == (1 << 63) - 1


@pytest.mark.parametrize(
    ("annotations", "containers_", "expected"),
    [
        (HALVES, TWO, Slice("main", 2, 500, None, 500)),
        ({"gpu-memory": "4096"}, TWO, Slice("main", 1, None, 4096)),
        (
            {**QUARTER, "gpu-fraction-container-name": "work"},
            TWO,
            Slice("work", 1, 250, None, 250),
        ),
        (None, (container("a"), CARD_IN_ANOTHER), Slice("b", 1, 1000, None, 1000)),
    ],
)
def test_a_pod_of_kais_is_read(
    annotations: dict[str, str] | None, containers_: tuple[Raw, ...], expected: Slice
) -> None:
    """As the request that would be rendered so."""
    raw = pod(annotations, *containers_, schedulerName="kai-scheduler")
    assert STACKS["kai"].read(typed(raw)) == Request((expected,))


def test_kai_in_some_namespaces() -> None:
    """Its pods are read in those; in all others they are left to it."""
    settings = {"backend": "native", "namespace_backends": "kai"}
    raw = pod({"gpu-memory": "4Gi"})
    assert mutated(raw, "ml", **settings)["spec"]["schedulerName"] == "kai-scheduler"
    made = mutated(raw, "team-a", **settings)
    assert made["spec"]["schedulerName"] == "gpu-fraction-scheduler"
    by_hand = pod(QUARTER, schedulerName="kai-scheduler")
    assert mutated(by_hand, "team-a", **settings) == by_hand
    assert mutated(by_hand, "ml", **settings) != by_hand


def test_left_to_does_not_name_a_backends_scheduler() -> None:
    """The default does not matter there; a list of the cluster's own that names it is refused."""
    with pytest.raises(SettingsError, match="left-to-schedulers contains kai-scheduler"):
        rewriting(backend="kai", left_to_schedulers="kai-scheduler,other")
    for left_to in ("kai-scheduler", "other", ""):
        by_hand = pod(QUARTER, schedulerName="kai-scheduler")
        assert mutated(by_hand, backend="kai", left_to_schedulers=left_to) != by_hand


@pytest.mark.parametrize(
    "key", ["runai-gpu-group", "received-resource-type", "kai.scheduler/numa-placement-observed"]
)
def test_what_kais_binder_writes(key: str) -> None:
    """No author does: KAI would read it as its own decision."""
    assert refusals(pod({**QUARTER, key: "x"}), "kai") == [
        f"metadata.annotations[{key}]: only gpu-fraction sets it; remove it"
    ]


@pytest.mark.parametrize("key", ["runai-gpu-group", "runai-gpu-group/other"])
def test_the_label_with_kais_cards(key: str) -> None:
    """KAI keeps the group of a card in labels."""
    raw = pod(QUARTER)
    raw["metadata"]["labels"] = {key: "x"}
    assert refusals(raw, "kai") == [
        f"metadata.labels[{key}]: only KAI-Scheduler sets it; remove it"
    ]
    assert verdict(raw, "native").operations


def test_our_webhook_comes_before_kais() -> None:
    """By name; a webhook that was skipped in the first round is not called in the second."""
    names = [
        document["metadata"]["name"]
        for document in YAML(typ="safe").load_all(CONFIGURATIONS)
        if document["kind"] == "MutatingWebhookConfiguration"
    ]
    assert names
    assert max(names) < "mutating-kai-admission"
    migrating = re.sub(r"\s+", " ", (Path(__file__).parents[3] / "docs/migrating.md").read_text())
    assert "sort before `mutating-kai-admission`" in migrating
