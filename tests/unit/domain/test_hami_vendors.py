"""Devices of other vendors under HAMi: what is rendered is charged, as HAMi would hand it out."""

import pytest

from gpu_fraction.domain import hami_devices
from gpu_fraction.domain.backends import BACKENDS, BackendConfig, demand
from gpu_fraction.domain.demand import Demand
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.hami_vendors import VENDORS, Vendor
from gpu_fraction.domain.request import Bounds
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.domain.user_annotations import parse
from tests.builders.pods import container, pod, typed

SHARING = [vendor for vendor in VENDORS if vendor.memory and vendor.even == 1]


def render(vendor: Vendor, annotations: dict[str, str]) -> PodEdit:
    """The edit of a pod for this vendor's devices of 64 GiB, or of their own size."""
    made = typed(pod(annotations, container("main")))
    config = BackendConfig(CardSizes(65536), own={"hami_vendor": vendor.name})
    request = parse(made, Bounds())
    assert request is not None
    return BACKENDS["hami"](config).render(request, made)


def cost(edit: PodEdit) -> Demand:
    """The charge for the resources alone."""
    return demand(typed(pod(None, container("main", edit.resources["main"]))))


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
def test_whole_devices(vendor: Vendor) -> None:
    """A count is charged as whole devices, and no node of NVIDIA's is asked for."""
    edit = render(vendor, {"gpu-fraction": "2"})
    assert not edit.problems
    assert edit.tolerations == ()
    charged = cost(edit)
    assert (charged.cards, charged.core_milli) == (2, 2000)


@pytest.mark.parametrize("milli", [1, 100, 125, 250, 333, 500, 800])
@pytest.mark.parametrize("vendor", SHARING, ids=lambda vendor: vendor.name)
def test_a_share_is_charged_and_never_less(vendor: Vendor, milli: int) -> None:
    """At least the memory and compute that the user is promised, rounded up to HAMi's sizes."""
    edit = render(vendor, {"gpu-fraction": f"{milli / 1000:.3f}"})
    assert not edit.problems
    promised_mib = int(edit.env["main"]["GPU_MEMORY_LIMIT_MIB"])  # type: ignore[arg-type]
    charged = cost(edit)
    assert charged.cards == 1
    assert charged.memory_mib >= promised_mib
    assert charged.core_milli >= milli
    if vendor.sizes_mib:
        assert charged.memory_mib in (*vendor.sizes_mib, vendor.card_mib)
    else:
        assert charged.memory_mib - promised_mib < 256


def test_every_amount_asks_hami() -> None:
    """AMD's count alone asks AMD's own plugin."""
    names = [name for vendor in VENDORS for name in hami_devices.names(vendor)]
    asking = [name for name in names if BACKENDS["hami"]().claims(typed(pod()), {name})]
    assert {*names} - {*asking} == {"amd.com/gpu"}
    assert len(names) == len({*names})


def test_a_count_of_amds_is_charged_once() -> None:
    """AMD's plugin and HAMi both know amd.com/gpu."""
    share = {"amd.com/gpu": "2", "amd.com/gpumem": "4096", "amd.com/gpucores": "10"}
    assert demand(typed(pod(None, container("main", share)))) == Demand(2, 200, 8192)


def test_vendors_beside_each_other_add_up() -> None:
    """One container can name devices of several."""
    both = {"nvidia.com/gpu": "1", "hygon.com/dcunum": "1", "nvidia.com/gpumem": "1024"}
    charged = demand(typed(pod(None, container("main", {**both, "nvidia.com/gpucores": "10"}))))
    assert charged == Demand(2, 1100, 1024, 1000)


@pytest.mark.parametrize(
    "count", [{}, {"metax-tech.com/sgpu": "1"}], ids=["alone", "with a count"]
)
def test_memory_that_is_rounded_to_nothing_costs_a_device(count: dict[str, str]) -> None:
    """Bytes below a MiB name no amount, so all of a device is charged."""
    asked = {**count, "metax-tech.com/vmemory": "1k"}
    assert demand(typed(pod(None, container("main", asked)))) == Demand(1, 1000, 0, 1000)
