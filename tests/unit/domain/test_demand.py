"""What a pod costs, however it asks and whichever stack."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.assignment import CardShare, render
from gpu_fraction.domain.backends import demand, is_gpu
from gpu_fraction.domain.demand import ZERO, Demand
from gpu_fraction.domain.request import MAX_CARDS
from tests.builders.pods import Raw, container, pod, typed

WHOLE = Demand(cards=1, core_milli=1000, open_memory_milli=1000)


def cost(*containers: Raw, annotations: Mapping[str, str] | None = None, **more: Any) -> Demand:
    """The demand of a pod of these containers."""
    return demand(typed(pod(annotations, *containers, **more)))


def gpus(name: str, count: int, **rest: Any) -> Raw:
    """A container with that many whole cards."""
    return container(name, {"nvidia.com/gpu": str(count)}, **rest)


def native(name: str, core: int, mem: int, **rest: Any) -> Raw:
    """A container with a native slice."""
    return container(
        name,
        {keys.SLOT: "1", keys.CORE_MILLI: str(core), keys.MEMORY_MIB: str(mem)},
        **rest,
    )


def asked(**part: Any) -> dict[str, str]:
    """The request annotation of container main."""
    text = json.dumps(
        {
            "v": 1,
            "backend": "native",
            "containers": [{"name": "main", **part}],
            "placement": "binpack",
            "isolation": "preferred",
        }
    )
    return {keys.REQUEST: text}


def test_a_pod_without_gpus_costs_nothing() -> None:
    """Nor does an empty one."""
    assert cost(container("main", {"cpu": "4", "memory": "8Gi"})) == ZERO
    assert cost(container("main")) == ZERO
    assert not cost(container("main"))


# How Kubernetes counts: k8s.io/component-helpers/resource, KEP-753.


def test_containers_add_up() -> None:
    """Every container holds its cards at once."""
    assert cost(gpus("a", 1), gpus("b", 2)).cards == 3


def test_init_containers_run_one_after_the_other() -> None:
    """The largest init container counts, where it is larger than all containers together."""
    init = [gpus("x", 4), gpus("y", 2)]
    assert cost(gpus("a", 1), gpus("b", 2), init=init).cards == 4
    assert cost(gpus("a", 3), gpus("b", 2), init=init).cards == 5


def test_only_an_init_container_asks() -> None:
    """It is charged although no container holds a GPU afterwards."""
    assert cost(container("a"), init=[gpus("x", 2)]).cards == 2


def test_sidecars_run_beside_the_containers() -> None:
    """They add to the containers, wherever among the init containers they stand."""
    sidecar = gpus("s", 1, restartPolicy="Always")
    assert cost(gpus("a", 2), init=[sidecar]).cards == 3
    assert cost(gpus("a", 2), init=[gpus("x", 2), sidecar]).cards == 3


def test_an_init_container_runs_beside_the_sidecars_before_it() -> None:
    """Those declared after it have not started yet."""
    sidecar = gpus("s", 2, restartPolicy="Always")
    assert cost(gpus("a", 1), init=[sidecar, gpus("x", 3)]).cards == 5
    assert cost(gpus("a", 1), init=[gpus("x", 3), sidecar]).cards == 3
    assert cost(gpus("a", 1), init=[gpus("x", 4), sidecar]).cards == 4


def test_sidecars_before_and_after() -> None:
    """Each init container with just the sidecars that run by then."""
    init = [
        gpus("s1", 1, restartPolicy="Always"),
        gpus("x", 2),
        gpus("s2", 1, restartPolicy="Always"),
        gpus("y", 3),
    ]
    assert cost(gpus("a", 1), init=init).cards == 5


def test_another_restart_policy_makes_no_sidecar() -> None:
    """Only Always does; others are rules for a container's own restarts."""
    init = [gpus("x", 3, restartPolicy="OnFailure"), gpus("y", 3)]
    assert cost(gpus("a", 1), init=init).cards == 3


def test_ephemeral_containers_cost_nothing() -> None:
    """They may have no resources; the API server sees to it."""
    assert cost(gpus("a", 1), ephemeral=[gpus("debug", 8)]).cards == 1


def test_each_dimension_has_its_own_maximum() -> None:
    """An init container large in memory, containers large in compute: both count."""
    assert cost(native("a", 900, 1024), init=[native("x", 100, 8192)]) == Demand(
        cards=1, core_milli=900, memory_mib=8192
    )


# Native resources.


def test_native_resources_are_the_amounts() -> None:
    """As the resource names say: thousandths and MiB over all cards."""
    assert cost(native("main", 250, 20480)) == Demand(1, 250, 20480)


def test_native_resources_asked_directly_are_charged_too() -> None:
    """Without any annotation: the cards that so much compute needs."""
    assert cost(native("a", 2000, 20_000)) == Demand(2, 2000, 20_000)
    assert cost(native("a", 0, 100)) == Demand(1, 0, 100), "nobody gives it cards"


def test_an_amount_that_native_resources_leave_out_is_left_open() -> None:
    """It follows the one that they name, once a card is chosen; then it is what the card says."""
    half = container("main", {keys.SLOT: "1", keys.CORE_MILLI: "500"})
    assert cost(half) == Demand(1, 500, open_memory_milli=500)
    memory = container("main", {keys.SLOT: "1", keys.MEMORY_MIB: "4096"})
    assert cost(memory) == Demand(
        1, 0, 4096, open_core_mib=4096, open_cards=1, open_least_mib=4096
    )
    chosen = {keys.ASSIGNED: render({"main": (CardShare("GPU-1", 500, 4096),)})}
    placed: Raw = {"annotations": chosen, "nodeName": "n"}
    assert cost(half, **placed) == cost(memory, **placed) == Demand(1, 500, 4096)


def test_cards_of_an_earlier_life_are_not_charged() -> None:
    """A restored pod without a node gets other cards, which may be larger."""
    half = container("main", {keys.SLOT: "1", keys.CORE_MILLI: "500"})
    stale = {keys.ASSIGNED: render({"main": (CardShare("GPU-gone", 500, 1),)})}
    assert cost(half, annotations=stale) == cost(half)


def test_native_resources_that_no_cards_can_give_are_charged_as_they_are_named() -> None:
    """Such a pod never starts, but while it waits it is not free."""
    assert cost(native("a", 2500, 100)) == Demand(3, 2500, 100)
    assert cost(container("a", {keys.CORE_MILLI: "100"})) == Demand(1, 100)
    assert cost(container("a", {keys.SLOT: "2"})) == Demand(2, 2000, open_memory_milli=2000)


def test_requests_without_limits_count() -> None:
    """The limit where there is one, else the request."""
    only = container("a")
    only["resources"] = {"requests": {keys.SLOT: "1", keys.CORE_MILLI: "300"}}
    assert cost(only) == Demand(1, 300, open_memory_milli=300)
    only["resources"]["limits"] = {keys.CORE_MILLI: "400"}
    assert cost(only) == Demand(1, 400, open_memory_milli=400)


def test_the_request_says_how_many_cards() -> None:
    """Two cards, a tenth of each: one slot and 200 thousandths tell it not."""
    part = asked(cards=2, coreMilli=100, memoryMilli=100)
    only = container("main", {keys.SLOT: "1", keys.CORE_MILLI: "200", keys.MEMORY_MIB: "16384"})
    assert cost(only, annotations=part) == Demand(2, 200, 16384)


def test_a_share_of_unknown_memory_is_left_open() -> None:
    """Until a card is chosen; then it is what the cards say."""
    part = asked(cards=2, coreMilli=250, memoryMilli=250)
    only = container("main", {keys.SLOT: "1", keys.CORE_MILLI: "500"})
    before = cost(only, annotations=part)
    assert before == Demand(2, 500, open_memory_milli=500)
    assert not before.exact
    shares = (CardShare("GPU-1", 250, 20480), CardShare("GPU-2", 250, 4096))
    given = {**part, keys.ASSIGNED: render({"main": shares})}
    after = cost(only, annotations=given, nodeName="n")
    assert after == Demand(2, 500, 24576)
    assert after.exact


def test_compute_that_follows_memory_is_left_open() -> None:
    """Until a card is chosen; then it is what the cards say."""
    part = asked(cards=2, memoryMib=4096)
    only = container("main", {keys.SLOT: "1", keys.MEMORY_MIB: "8192"})
    before = cost(only, annotations=part)
    assert before == Demand(2, 0, 8192, open_core_mib=8192, open_cards=2, open_least_mib=4096)
    assert not before.exact
    shares = (CardShare("GPU-1", 50, 4096), CardShare("GPU-2", 250, 4096))
    given = {**part, keys.ASSIGNED: render({"main": shares})}
    after = cost(only, annotations=given, nodeName="n")
    assert after == Demand(2, 300, 8192)


@pytest.mark.parametrize("text", ["", "{", '{"v":1}', "null"])
@pytest.mark.parametrize("key", [keys.REQUEST, keys.ASSIGNED])
def test_a_damaged_annotation_does_not_make_a_pod_free(key: str, text: str) -> None:
    """The resources count by themselves."""
    assert cost(native("main", 250, 4096), annotations={key: text}) == Demand(1, 250, 4096)


# HAMi, by the facts of its own tests (pkg/device/nvidia/device_test.go): limits to
# {Nums, Memreq, MemPercentage, Cores}; unlike HAMi, compute that nobody limited is charged:
# whole where the card is whole, else as much as the memory.


def hami(**amounts: str) -> Demand:
    """The demand of a container with these ``nvidia.com/`` resources."""
    names = {"gpu": "gpu", "mem": "gpumem", "pct": "gpumem-percentage", "cores": "gpucores"}
    resources = {f"nvidia.com/{names[key]}": amount for key, amount in amounts.items()}
    return cost(container("main", resources))


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        pytest.param({}, ZERO, id="none"),
        pytest.param({"gpu": "1"}, WHOLE, id="gpu"),
        pytest.param(
            {"gpu": "2", "mem": "4096"},
            Demand(2, 0, 8192, open_core_mib=8192, open_cards=2),
            id="gpu-2-mem",
        ),
        pytest.param({"gpu": "1", "pct": "50"}, Demand(1, 500, 0, 500), id="pct-50"),
        pytest.param({"gpu": "1", "pct": "100"}, WHOLE, id="pct-100-is-exclusive"),
        pytest.param({"gpu": "1", "pct": "101"}, WHOLE, id="pct-101"),
        pytest.param({"gpu": "1", "pct": "150"}, WHOLE, id="pct-150"),
        pytest.param({"gpu": "1", "pct": str(2**32 + 50)}, WHOLE, id="pct-beyond-32-bits"),
        pytest.param({"gpu": "1", "pct": "0"}, WHOLE, id="pct-0-is-unset"),
        pytest.param({"gpu": "1", "pct": "-1"}, WHOLE, id="pct-negative-is-unset"),
        pytest.param({"gpu": "1", "cores": "50"}, Demand(1, 500, 0, 1000), id="cores-50"),
        pytest.param({"gpu": "1", "cores": "150"}, WHOLE, id="cores-are-clamped"),
        pytest.param(
            {"gpu": "1", "mem": "2000", "pct": "0"},
            Demand(1, 0, 2000, open_core_mib=2000, open_cards=1),
            id="mem-and-pct-0",
        ),
        pytest.param(
            {"gpu": "1", "mem": "2000", "pct": "50", "cores": "30"},
            Demand(1, 300, 2000),
            id="mem-wins-over-pct",
        ),
        pytest.param(
            {"gpu": "2", "pct": "50", "cores": "30"},
            Demand(2, 600, 0, 1000),
            id="amounts-are-per-card",
        ),
        pytest.param({"cores": "30"}, Demand(1, 300, 0, 1000), id="cores-bring-one-card"),
        pytest.param({"pct": "30"}, Demand(1, 300, 0, 300), id="pct-brings-one-card"),
        pytest.param(
            {"mem": "4096"},
            Demand(1, 0, 4096, open_core_mib=4096, open_cards=1),
            id="mem-brings-one-card",
        ),
        pytest.param(
            {"gpu": "1", "mem": "16Gi", "cores": "1"},
            Demand(1, 10, 1 << 34),
            id="a-suffix-is-no-unit-and-never-free",
        ),
    ],
)
def test_hami(amounts: dict[str, str], expected: Demand) -> None:
    """Count times the amounts of each card."""
    assert hami(**amounts) == expected


def test_hami_requests_without_limits() -> None:
    """HAMi falls back to requests, and so does the charge."""
    only = container("main")
    only["resources"] = {"requests": {"nvidia.com/gpu": "1"}}
    assert cost(only) == WHOLE


# Whole cards and MIG.


@pytest.mark.parametrize(
    "name",
    ["nvidia.com/gpu", "nvidia.com/gpu.shared", "amd.com/gpu", "gpu.intel.com/i915"],
)
def test_whole_cards_of_any_vendor(name: str) -> None:
    """A time slice of unknown size too: charged as a whole card, never as less."""
    assert cost(container("a", {name: "2"})) == WHOLE + WHOLE


@pytest.mark.parametrize("mode", ["spx", "dpx", "tpx", "qpx", "cpx"])
def test_a_partition_of_an_amd_card_is_charged_as_a_card(mode: str) -> None:
    """Where all are called amd.com/gpu a partition is not told from a card either."""
    name = f"amd.com/{mode}_nps4"
    assert is_gpu(name)
    assert cost(container("a", {name: "2"})) == cost(container("a", {"amd.com/gpu": "2"}))


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("mig-1g.5gb", "1", Demand(1, 143, 5120)),
        ("mig-1g.10gb", "2", Demand(2, 286, 20480)),
        ("mig-2g.10gb", "1", Demand(1, 286, 10240)),
        ("mig-3g.20gb", "1", Demand(1, 429, 20480)),
        ("mig-7g.80gb", "1", Demand(1, 1000, 81920)),
        ("mig-1g.10gb.me", "1", Demand(1, 143, 10240)),
        ("mig-1g.10gb.shared", "1", Demand(1, 143, 10240)),
    ],
)
def test_mig_instances_by_their_profile(name: str, count: str, expected: Demand) -> None:
    """Sevenths of a card's compute, and the profile's memory."""
    assert cost(container("a", {f"nvidia.com/{name}": count})) == expected


@pytest.mark.parametrize("name", ["mig-1g.24gb-me", "mig-8g.1gb", "mig-1c.3g.40gb", "mig-new"])
def test_a_mig_profile_of_unknown_form_is_charged_as_a_card(name: str) -> None:
    """A name that this program does not know yet must not be free."""
    assert cost(container("a", {f"nvidia.com/{name}": "1"})) == WHOLE


def test_stacks_add_up_in_one_pod() -> None:
    """Whole cards, MIG and native slices beside each other."""
    assert cost(
        gpus("a", 1), container("b", {"nvidia.com/mig-7g.80gb": "1"}), native("c", 250, 1024)
    ) == Demand(3, 2250, 82944, 1000)


@pytest.mark.parametrize(
    "name", ["nvidia.com/mig-7g.80gb", "amd.com/gpu", "nvidia.com/gpu.shared", "gpu.intel.com/xe"]
)
def test_a_share_of_nothing_does_not_hide_other_stacks(name: str) -> None:
    """Zero of HAMi's resources fits any node, so any tenant can write it beside the rest."""
    plain = cost(container("a", {name: "4"}))
    assert plain.cards == 4
    assert cost(container("a", {name: "4", "nvidia.com/gpucores": "0"})) == plain
    assert cost(container("a", {name: "4"}), container("b", {"nvidia.com/gpumem": "0"})) == plain


def test_a_resource_that_two_stacks_take_over_is_charged_once() -> None:
    """HAMi's cards, in a pod that selects nodes whose cards are all divided alike."""
    raw = pod(
        None,
        container("a", {"nvidia.com/gpu": "2", "nvidia.com/gpumem": "1024"}),
        nodeSelector={"nvidia.com/gpu.product": "NVIDIA-A30-MIG-1g.6gb"},
    )
    assert demand(typed(raw)).cards == 2


@pytest.mark.parametrize(
    "name",
    ["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "nvidia.com/gpumem", keys.CORE_MILLI, keys.SLOT],
)
@pytest.mark.parametrize("amount", ["1e40", "1e99", "9" * 40, "9" * 60, "1Ei", str(2**63)])
def test_an_absurd_amount_costs_more_than_anybody_has(name: str, amount: str) -> None:
    """It is neither a crash nor free."""
    total = cost(container("a", {name: amount}))
    assert total.cards >= MAX_CARDS or max(total.core_milli, total.memory_mib) >= 10**18


@pytest.mark.parametrize("amount", ["", "x", "-3", "0"])
def test_an_amount_that_the_api_would_refuse_costs_nothing(amount: str) -> None:
    """The pod cannot come to exist."""
    assert cost(container("a", {"nvidia.com/gpu": amount, keys.MEMORY_MIB: amount})) == ZERO


@pytest.mark.parametrize(
    ("amount", "cards"), [("1k", 1000), ("3000m", 3), ("1500m", 2), ("1e1", 10)]
)
def test_amounts_are_quantities(amount: str, cards: int) -> None:
    """Whatever suffix they are written with; a part counts as a whole one."""
    assert cost(container("a", {"nvidia.com/gpu": amount})).cards == cards


# What open amounts can come to.


@pytest.mark.parametrize(
    ("given", "smallest", "largest", "charged"),
    [
        (Demand(1, 250, 4096), 15360, 81920, Demand(1, 250, 4096)),
        (Demand(1, 250, 0, 250), 15360, 81920, Demand(1, 250, 20480)),
        (Demand(1, 333, 0, 333), 15360, 81559, Demand(1, 333, 27159)),
        (Demand(1, 0, 4096, 0, 4096, 1), 16384, 81920, Demand(1, 250, 4096)),
        (Demand(1, 0, 4097, 0, 4097, 1), 16384, 81920, Demand(1, 251, 4097)),
        (Demand(2, 0, 32768, 0, 32768, 2), 8192, 81920, Demand(2, 2000, 32768)),
        (Demand(1, 0, 4096, 0, 4096, 1), 0, 81920, Demand(1, 1000, 4096)),
        (Demand(16, 0, 16, 0, 16, 16, 1), 81920, 81920, Demand(16, 16, 16)),
        (Demand(2, 0, 41000, 0, 41000, 2, 40), 81920, 81920, Demand(2, 502, 41000)),
        (Demand(2, 0, 200, 0, 200, 2, 100), 81920, 81920, Demand(2, 3, 200)),
        (Demand(6, 6, 0, 6), 500, 500, Demand(6, 6, 6)),
        (Demand(1, 500, 0, 500), 0, 0, Demand(1, 500, 0)),
    ],
)
def test_open_amounts_are_charged_at_their_most(
    given: Demand, smallest: int, largest: int, charged: Demand
) -> None:
    """Memory on the largest card, compute on the smallest, never more than the cards' all.

    Each card gives 1 MiB and 1 thousandth at least.
    """
    assert given.charged(smallest, largest) == charged
    assert charged.exact
