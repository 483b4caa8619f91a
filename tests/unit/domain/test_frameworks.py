"""What frameworks are told of their part, and what a container decides for itself."""

import re
from pathlib import Path

import pytest

from gpu_fraction.domain import frameworks
from gpu_fraction.domain.backends import BACKENDS
from gpu_fraction.domain.frameworks import VARIABLES, variables
from gpu_fraction.domain.pod import EnvFrom, EnvVar

CARD_MIB = 81_920


def test_a_quarter_of_a_card_less_the_context() -> None:
    """Each framework in its own form; the two names of JAX never both have a value."""
    assert variables(250, CARD_MIB) == {
        "GPU_MEMORY_FRACTION": "0.243",
        "PYTORCH_ALLOC_CONF": "per_process_memory_fraction:0.243",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.243",
        "XLA_CLIENT_MEM_FRACTION": "",
        "FLAGS_gpu_memory_limit_mb": "19968",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "CUPY_GPU_MEMORY_LIMIT": "24.3%",
    }


def test_without_the_cards_size_a_small_card_is_assumed() -> None:
    """The context is then a large part; an amount is not known, so Paddle gets a part too."""
    told = variables(250)
    assert told["GPU_MEMORY_FRACTION"] == "0.218"
    assert told["FLAGS_fraction_of_gpu_memory_to_use"] == "0.218"
    assert "FLAGS_gpu_memory_limit_mb" not in told


@pytest.mark.parametrize("card_mib", [None, 8_192, 15_360, CARD_MIB, 196_608])
def test_never_more_than_the_share_and_always_something(card_mib: int | None) -> None:
    """Every part in thousandths, down to nothing; a larger share is never told less."""
    last = 0.0
    for part_milli in range(1000):
        told = float(variables(part_milli, card_mib)["GPU_MEMORY_FRACTION"])
        assert 0 < told <= max(part_milli / 1000, 0.001)
        assert told >= last
        last = told


def test_a_whole_card_is_shared_with_nobody() -> None:
    """The frameworks' own defaults are right there."""
    assert variables(1000, CARD_MIB) == {}


def test_the_page_names_the_stacks_that_leave_the_total() -> None:
    """A user cannot find them elsewhere."""
    page = (Path(__file__).parents[3] / "docs" / "frameworks.md").read_text()
    (row,) = re.findall(r"^\| (.*) \| the card \| yes, by the webhook", page, re.MULTILINE)
    assert re.findall(r"`(.*?)`", row) == [n for n, s in BACKENDS.items() if s.leaves_total]


@pytest.mark.parametrize("one", VARIABLES, ids=lambda one: one.name)
@pytest.mark.parametrize("card_mib", [None, CARD_MIB])
def test_what_a_container_sets_stays(one: frameworks.Variable, card_mib: int | None) -> None:
    """Also where it decides by another name, and where the value is not known."""
    for name in (one.name, *one.instead):
        assert one.name not in variables(250, card_mib, {name: None})


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("expandable_segments:True", "expandable_segments:True,per_process_memory_fraction:0.243"),
        ("backend:native, ", "backend:native,per_process_memory_fraction:0.243"),
        ("", "per_process_memory_fraction:0.243"),
        ("per_process_memory_fraction:0.1", None),
        ("backend:native,per_process_memory_fraction:0.1", None),
    ],
)
def test_a_list_of_keys_is_extended(own: str, expected: str | None) -> None:
    """Unless it has the key already."""
    told = variables(250, CARD_MIB, {"PYTORCH_ALLOC_CONF": own})
    assert told.get("PYTORCH_ALLOC_CONF") == expected


def test_a_list_beside_an_older_name_stays() -> None:
    """PyTorch takes the older name, so an extended list would tell nothing."""
    own = {"PYTORCH_ALLOC_CONF": "backend:native", "PYTORCH_CUDA_ALLOC_CONF": "backend:native"}
    assert "PYTORCH_ALLOC_CONF" not in variables(250, CARD_MIB, own)


def test_other_frameworks_are_told_all_the_same() -> None:
    """One variable of the container's own decides for its framework alone."""
    told = variables(250, CARD_MIB, {"XLA_CLIENT_MEM_FRACTION": "0.5"})
    assert [name for name in told if name.startswith("XLA")] == []
    assert told["CUPY_GPU_MEMORY_LIMIT"] == "24.3%"


@pytest.mark.parametrize(
    ("var", "expected"),
    [
        (EnvVar("PASSWORD", "x"), {}),
        (EnvVar("PYTORCH_ALLOC_CONF", "backend:native"), {"PYTORCH_ALLOC_CONF": "backend:native"}),
        (EnvVar("PYTORCH_ALLOC_CONF", "$(CONF)"), {"PYTORCH_ALLOC_CONF": None}),
        (EnvVar("XLA_CLIENT_MEM_FRACTION"), {"XLA_CLIENT_MEM_FRACTION": None}),
    ],
)
def test_what_a_container_sets_itself(var: EnvVar, expected: dict[str, str | None]) -> None:
    """A value is known where the pod has it and the kubelet leaves it as it is."""
    assert frameworks.own([var], None) == expected


def test_a_config_map_may_set_any_variable_of_a_framework() -> None:
    """So nothing is written, except the variable of this project."""
    hidden = frameworks.own(None, [EnvFrom()])
    assert variables(250, CARD_MIB, hidden) == {"GPU_MEMORY_FRACTION": "0.243"}


@pytest.mark.parametrize("one", VARIABLES, ids=lambda one: one.name)
def test_the_page_lists_each_variable(one: frameworks.Variable) -> None:
    """With its framework and the version from which it is understood."""
    page = (Path(__file__).parents[3] / "docs" / "frameworks.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(f"| {one.framework} |")]
    (row,) = [row for row in rows if f"`{one.name}`" in row]
    assert f"| {one.since} |" in row
