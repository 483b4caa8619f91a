"""The stacks of resource names, units and steps take and give what their own tests say."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain import units
from gpu_fraction.domain.backends import STACKS, Backend, BackendConfig, configured, demand
from gpu_fraction.domain.demand import Demand, demand_of
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.request import Bounds, Slice
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.domain.user_annotations import parse
from tests.builders.pods import Raw, container, pod, typed

DATA: Any = YAML(typ="safe").load(Path(__file__).parents[2] / "data" / "stacks.yaml")
REQUESTS = {
    "quarter": {"gpu-fraction": "0.25"},
    "memory": {"gpu-memory": "4Gi"},
    "halves": {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"},
}
KOORDINATOR = "koordinator.sh/"


def stack(name: str, card_mib: int | None = None, **own: Any) -> Backend:
    """A backend of a cluster whose GPUs have one size, or none that is known."""
    return configured(BackendConfig(CardSizes(card_mib), own=own))[name]


def rendered(backend: Backend, raw: Raw) -> PodEdit:
    """The edit for the pod's annotations."""
    made = typed(raw)
    request = parse(made, Bounds())
    assert request is not None
    return backend.render(request, made)


def texts(amounts: Mapping[str, Any]) -> dict[str, str]:
    """Amounts as the API server has them."""
    return {name: str(amount) for name, amount in amounts.items()}


@pytest.mark.parametrize("asked", REQUESTS)
@pytest.mark.parametrize("name", DATA["matrix"])
def test_the_same_request_on_every_stack(name: str, asked: str) -> None:
    """A quarter, 4 GiB and two halves; memory alone where no size is known."""
    row = DATA["matrix"][name]
    backend = stack(name, None if asked == "memory" else row.get("card_mib"))
    edit = rendered(backend, pod(REQUESTS[asked]))
    if row[asked] == "refused":
        assert edit.problems
        return
    assert edit.problems == []
    assert edit.resources == {"main": texts(row[asked])}
    if backend.charged_by:
        assert edit.labels == (row["label_of_halves"] if asked == "halves" else {})


@pytest.mark.parametrize("case", DATA["written"], ids=lambda case: str(case["from"]))
def test_a_request_becomes_what_the_stacks_documents_write(case: Any) -> None:
    """In its own units."""
    edit = rendered(stack(case["stack"], case.get("card_mib")), pod(case["annotations"]))
    assert edit.problems == []
    assert edit.resources == {"main": texts(case["resources"])}


@pytest.mark.parametrize("case", DATA["read"], ids=lambda case: str(case["from"]))
def test_a_pod_written_for_the_stack_is_read(case: Any) -> None:
    """By hand, too; never as less than it may get."""
    raw = pod(None, container(resources=texts(case["resources"])))
    raw["metadata"]["labels"] = case.get("labels", {})
    expected = Slice("main", **{"core_milli": None, **case["slice"]})
    found = STACKS[case["stack"]].read(typed(raw))
    assert found is not None
    assert found.slices == (expected,)
    assert demand(typed(raw)) == demand_of(expected)


def koordinator_takes(given: Mapping[str, Any]) -> bool:
    """Koordinator's rules: apis/extension/device_share.go and pkg/webhook/pod/validating."""
    core, ratio, shared = (
        int(given.get(name, 0)) for name in ("gpu-core", "gpu-memory-ratio", "gpu.shared")
    )
    if bool(ratio) == ("gpu-memory" in given):
        return False
    for percent in (core, ratio):
        if shared and (percent % shared or percent > 100 * shared):
            return False
        if not shared and percent > 100 and percent % 100:
            return False
    return True


def test_koordinators_rules_are_understood() -> None:
    """They give the verdicts of its own tests."""
    cases = DATA["koordinator"]
    assert [case for case in cases["valid"] if not koordinator_takes(case)] == []
    assert [case for case in cases["invalid"] if koordinator_takes(case)] == []


@pytest.mark.parametrize("card_mib", [None, 16384, 81559])
def test_koordinator_takes_what_is_written_for_it(card_mib: int | None) -> None:
    """Whatever the share and the number of cards."""
    for share, cores, cards in itertools.product(
        ("0.001", "0.125", "0.333", "0.5", "1", "4Gi"), (None, "0.015", "1"), ("1", "2", "3")
    ):
        key = "gpu-memory" if share.endswith("i") else "gpu-fraction"
        asked = {key: share, "gpu-fraction-num-devices": cards}
        if cores:
            asked["gpu-cores"] = cores
        edit = rendered(stack("koordinator", card_mib), pod(asked))
        assert edit.problems == []
        given = {k.removeprefix(KOORDINATOR): v for k, v in edit.resources["main"].items()}
        assert koordinator_takes(given), (asked, given)


def test_koordinator_isolates_unless_nobody_wants_it() -> None:
    """By its label, which its users may set to a provider of their own."""
    label = "koordinator.sh/gpu-isolation-provider"

    def labels(isolation: str, own: str | None = None, share: str = "0.5") -> dict[str, str]:
        raw = pod({"gpu-fraction": share, "gpu-fraction.dev/isolation": isolation})
        raw["metadata"]["labels"] = (
            {label: own} if own else {"quota.scheduling.koordinator.sh": "a"}
        )
        return rendered(stack("koordinator"), raw).labels

    assert labels("preferred") == labels("required") == {label: "HAMi-core"}
    assert labels("none") == labels("preferred", share="2") == {}
    assert labels("preferred", own="other") == {}
    assert labels("required", own="other") == {label: "HAMi-core"}


@pytest.mark.parametrize("name", ["cgpu", "cce-xgpu"])
def test_a_label_with_the_number_of_cards_is_not_left_to_chance(name: str) -> None:
    """The author's label would divide the amounts of one card."""
    (label,) = STACKS[name].charged_by
    raw = pod({"gpu-memory": "4Gi"})
    assert rendered(stack(name), raw).labels == {}
    raw["metadata"]["labels"] = {label: "2"}
    assert rendered(stack(name), raw).labels == {label: "1"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "cgpu",
            "ACK cGPU gives its cards to the pod, not to one container; allowed: one GPU each",
        ),
        (
            "cce-xgpu",
            "CCE xGPU gives its cards to the pod, not to one container; allowed: one GPU each",
        ),
        (
            "koordinator",
            "Koordinator gives its cards to the pod, not to one container; allowed: one container",
        ),
    ],
)
def test_cards_of_a_pod_are_not_divided_among_containers(name: str, told: str) -> None:
    """Where one label counts them, or each container sees all of them."""
    raw = pod(
        {"gpu-fraction": "2", "gpu-fraction.dev/container.side": "1"},
        container(),
        container("side"),
    )
    (problem,) = rendered(stack(name, 16384), raw).problems
    assert str(problem) == (
        "metadata.annotations[gpu-fraction.dev/container.side]: cannot be honoured: " + told
    )


@pytest.mark.parametrize("name", ["volcano", "cce-xgpu", "gpu-manager", "gpushare"])
def test_stacks_that_read_regular_containers_only(name: str) -> None:
    """A sidecar would be charged and get nothing."""
    proxy = {**container("proxy"), "restartPolicy": "Always"}
    raw = pod({"gpu-fraction.dev/container.proxy": "1"}, init=[proxy])
    (problem,) = rendered(stack(name, 16384), raw).problems
    assert str(problem).endswith("gives sidecars nothing; allowed: a regular container")


def test_required_isolation_on_cgpu_is_a_mode_of_the_node() -> None:
    """Compute exists only on nodes that isolate it; memory alone is not isolated everywhere."""
    asked = {"gpu-memory": "4Gi", "gpu-fraction.dev/isolation": "required"}
    mode = {"ack.node.gpu.schedule": "cgpu"}
    assert rendered(stack("cgpu"), pod(asked)).node_selector == mode
    assert rendered(stack("cgpu"), pod({**asked, "gpu-cores": "0.3"})).node_selector == {}
    assert rendered(stack("cgpu"), pod({"gpu-memory": "4Gi"})).node_selector == {}


def test_rounding_is_told_with_both_figures() -> None:
    """In the stack's steps."""
    edit = rendered(stack("qgpu", 16384), pod({"gpu-fraction": "0.333"}))
    assert edit.warnings[-2:] == (
        (
            "container main: 5455 MiB is rounded up to 6144 MiB, TKE qGPU counts memory in steps "
            "of 1Gi"
        ),
        "container main: 33.3% of compute is rounded up to 35%, TKE qGPU knows steps of 5%",
    )
    edit = rendered(stack("gpushare", 81559), pod({"gpu-fraction": "1"}))
    assert edit.warnings[-1] == (
        "container main: 81559 MiB is counted as 80896 MiB, Alibaba gpushare counts memory in "
        "steps of 1Gi"
    )


def test_shares_of_several_cards_without_compute_are_told() -> None:
    """ACK divides memory only."""
    edit = rendered(
        stack("cgpu", 16384), pod({"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"})
    )
    assert edit.warnings[-1] == (
        "container main: ACK cGPU gives memory only of several GPUs, the compute is not limited"
    )


def test_volcano_reads_its_choices_back() -> None:
    """Models and cards of its annotations."""
    given = {
        "nvidia.com/use-gputype": "A100,H100",
        "nvidia.com/nouse-gputype": "A100X",
        "volcano.sh/vgpu-use-gpuuuid": "GPU-1, GPU-2",
    }
    raw = pod(given, container(resources={"volcano.sh/vgpu-number": "1"}))
    found = STACKS["volcano"].read(typed(raw))
    assert found is not None
    assert (found.models, found.not_models, found.uuids) == (
        ("A100", "H100"),
        (),
        ("GPU-1", "GPU-2"),
    )
    del given["nvidia.com/use-gputype"]
    found = STACKS["volcano"].read(typed({**raw, "metadata": {"annotations": given}}))
    assert found is not None
    assert found.not_models == ("A100X",)


def test_names_of_two_stacks_are_charged_once() -> None:
    """Those of gpushare by cgpu, and those of elastic-gpu's other kinds by their own backends."""
    for name, cost in (
        ("aliyun.com/gpu-mem", Demand(1, 0, 1024, open_core_mib=1024, open_cards=1)),
        ("tke.cloud.tencent.com/qgpu-core", Demand(1, 10, open_memory_milli=10)),
        ("nvidia.com/gpu", Demand(1, 1000, open_memory_milli=1000)),
    ):
        raw = pod(None, container(resources={name: "1"}))
        for kind in ("gpushare", "qgpu", "pgpu"):
            stacks = configured(BackendConfig(own={"elastic_gpu_kind": kind}))
            assert demand(typed(raw), stacks) == cost


@pytest.mark.parametrize("kind", ["qgpu", "pgpu"])
def test_other_kinds_of_elastic_gpu_are_not_verified(kind: str) -> None:
    """A warning says so, and they are read back by their own names."""
    backend = stack("elastic-gpu", 16384, elastic_gpu_kind=kind)
    raw = pod({"gpu-fraction": "1"})
    edit = rendered(backend, raw)
    assert edit.warnings[0] == (
        "not verified for the backend elastic-gpu: Elastic GPU places this kind of GPU (only "
        "gpushare's scheduler is public)"
    )
    found = backend.read(typed(pod(None, container(resources=edit.resources["main"]))))
    assert found is not None
    assert found.slices == (Slice("main", 1, core_milli=units.MILLI, memory_milli=units.MILLI),)
