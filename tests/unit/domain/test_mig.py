"""MIG profiles: which one holds a request, and what an instance costs."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gpu_fraction.domain import mig
from gpu_fraction.domain.request import Slice

CLASSES = Path(__file__).parents[3] / "deploy" / "dra" / "nvidia-mig-classes.yaml"


@pytest.mark.parametrize(
    ("model", "shares"),
    [
        ("A30", {100: "1g.6gb", 250: "1g.6gb", 251: "2g.12gb", 500: "2g.12gb", 501: "4g.24gb"}),
        (
            "A100-40GB",
            {125: "1g.5gb", 142: "1g.10gb", 143: "2g.10gb", 285: "3g.20gb", 429: "4g.20gb"},
        ),
        ("A100-80GB", {100: "1g.10gb", 250: "2g.20gb", 400: "3g.40gb", 572: "7g.80gb"}),
        ("H100-94GB", {125: "1g.12gb", 250: "2g.24gb", 428: "3g.47gb", 1000: "7g.94gb"}),
        ("H200", {125: "1g.18gb", 250: "2g.35gb", 500: "4g.71gb", 1000: "7g.141gb"}),
        ("B200", {125: "1g.23gb", 250: "2g.45gb", 500: "4g.90gb", 1000: "7g.180gb"}),
        ("RTX-PRO-6000-Blackwell", {250: "1g.24gb", 500: "2g.48gb", 750: "4g.96gb"}),
    ],
)
def test_the_smallest_profile_with_a_share(model: str, shares: dict[int, str]) -> None:
    """Enough of the compute slices and of the memory slices."""
    (found,) = mig.find(model)
    chosen = {
        milli: profile.name
        for milli in shares
        if (profile := found.holding(Slice("c", core_milli=milli, memory_milli=milli)))
    }
    assert chosen == shares


@pytest.mark.parametrize(
    ("memory_mib", "core_milli", "profile"),
    [
        (4096, None, "1g.10gb"),
        (9 << 10, None, "1g.20gb"),
        (9 << 10, 200, "2g.20gb"),
        (30 << 10, None, "3g.40gb"),
        (30 << 10, 500, "4g.40gb"),
        (77 << 10, None, "7g.80gb"),
        (78 << 10, None, None),
    ],
)
def test_the_smallest_profile_with_an_amount(
    memory_mib: int, core_milli: int | None, profile: str | None
) -> None:
    """An instance has less memory than its name says; compute counts where it is asked."""
    (model,) = mig.find("H100-80GB")
    found = model.holding(Slice("c", memory_mib=memory_mib, core_milli=core_milli))
    assert (found and found.name) == profile


@pytest.mark.parametrize(
    ("profile", "shown_gib"),
    [
        ("1g.5gb", 4.75),
        ("1g.10gb", 9.50),
        ("1g.12gb", 10.62),
        ("1g.18gb", 16.00),
        ("1g.23gb", 20.50),
        ("1g.24gb", 21.62),
        ("2g.35gb", 32.25),
        ("2g.45gb", 44.25),
        ("3g.40gb", 39.25),
        ("3g.71gb", 69.50),
        ("7g.80gb", 78.75),
    ],
)
def test_an_instance_has_the_memory_that_is_promised(profile: str, shown_gib: float) -> None:
    """By the smallest figures that ``nvidia-smi mig -lgip`` showed for each."""
    every = [found for model in mig.MODELS for found in model.profiles if found.name == profile]
    assert all(found.least_mib <= shown_gib * 1024 for found in every)
    assert all(found.least_mib >= shown_gib * 1024 * 0.9 for found in every)


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("A100-80GB", ["A100-80GB"]),
        ("NVIDIA-A100-SXM4-40GB", ["A100-40GB"]),
        ("NVIDIA-A100-80GB-PCIe", ["A100-80GB"]),
        ("NVIDIA-H100-80GB-HBM3", ["H100-80GB"]),
        ("NVIDIA-H100-NVL", ["H100-94GB"]),
        ("NVIDIA-H200-NVL", ["H200"]),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", ["RTX-PRO-6000-Blackwell"]),
        ("h100", ["H100-80GB", "H100-94GB", "H100-96GB"]),
        ("NVIDIA-GB200", []),
        ("T4", []),
        ("", []),
    ],
)
def test_models_by_users_words_and_product_labels(text: str, models: list[str]) -> None:
    """A product is one model, a short name can be several."""
    assert [model.name for model in mig.find(text)] == models


@pytest.mark.parametrize(
    ("profile", "model", "cost"),
    [
        ("1g.6gb", "", (250, 6144)),
        ("1g.24gb", "", (250, 24576)),
        ("1g.24gb", "H100-94GB", (143, 24576)),
        ("1g.24gb", "A30", (250, 24576)),
        ("3g.139gb", "", (429, 142336)),
        ("7g.40gb", "A30", (1000, 40960)),
        ("1c.3g.40gb", "", None),
        ("1g.24gb-me", "", None),
    ],
)
def test_an_instance_costs_its_part_of_a_card(
    profile: str, model: str, cost: tuple[int, int] | None
) -> None:
    """Of cards that divide differently the larger part, unless the model is known."""
    assert mig.charged(profile, mig.find(model)) == cost


def test_every_profile_has_a_device_class() -> None:
    """The manifest for NVIDIA's DRA driver has the profiles of the table, each by its name."""
    classes = {
        made["metadata"]["name"]: made["spec"]["selectors"][0]["cel"]["expression"]
        for made in YAML(typ="safe").load_all(CLASSES)
    }
    names = {name for model in mig.MODELS for name in model.names}
    assert set(classes) == {f"mig-{name}.nvidia.com" for name in names}
    for name, expression in classes.items():
        (profile,) = re.findall(r"\.profile == '([^']+)'", expression)
        assert name == f"mig-{profile}.nvidia.com"
