"""When a share of a card's memory is a number of MiB, and what the user is told."""

import pytest

from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.sizes import Amounts, CardSizes, describe, resolve

A100_40, A100_80, H100, T4 = 40960, 81920, 81559, 15360
MIXED = CardSizes(
    by_model_mib={"A100-40GB": A100_40, "A100-80GB": A100_80, "H100": H100, "T4": T4}
)


def asked(
    models: tuple[str, ...] = (), not_models: tuple[str, ...] = (), part: Slice | None = None
) -> Request:
    """Half of a card, of these models."""
    return Request((part or Slice("main", 1, 500, None, 500),), models, not_models)


@pytest.mark.parametrize(
    ("sizes", "request_", "eligible"),
    [
        pytest.param(CardSizes(), asked(), set(), id="nothing-known"),
        pytest.param(CardSizes(T4), asked(), {T4}, id="one-size"),
        pytest.param(CardSizes(T4), asked(("H100",)), {T4}, id="one-size-for-any-model"),
        pytest.param(CardSizes(T4), asked((), ("H100",)), {T4}, id="one-size-but-one-model"),
        pytest.param(MIXED, asked(), {A100_40, A100_80, H100, T4}, id="any-model"),
        pytest.param(MIXED, asked(("T4",)), {T4}, id="one-model"),
        pytest.param(MIXED, asked(("t4",)), {T4}, id="case-does-not-count"),
        pytest.param(MIXED, asked(("A100",)), {A100_40, A100_80}, id="a-model-of-two-sizes"),
        pytest.param(MIXED, asked(("NVIDIA A100-80GB PCIe",)), {A100_80}, id="the-full-name"),
        pytest.param(MIXED, asked(("A100", "T4")), {A100_40, A100_80, T4}, id="two-models"),
        pytest.param(MIXED, asked(("L40",)), set(), id="an-unknown-model"),
        pytest.param(MIXED, asked(("T4", "L40")), set(), id="one-unknown-model-of-two"),
        pytest.param(MIXED, asked((), ("A100",)), {H100, T4}, id="not-one-model"),
        pytest.param(MIXED, asked((), ("A100", "H100", "T4")), set(), id="none-left"),
        pytest.param(
            CardSizes(T4, {"H100": H100}), asked(), {T4, H100}, id="one-size-but-for-a-model"
        ),
        pytest.param(
            CardSizes(T4, {"H100": H100}), asked(("H100",)), {H100}, id="the-named-model-wins"
        ),
        pytest.param(
            CardSizes(T4, {"H100": H100}), asked(("L4",)), {T4}, id="the-one-size-for-the-rest"
        ),
        pytest.param(CardSizes(None, {"T4": T4}), asked(("T40",)), set(), id="T40-is-no-T4"),
    ],
)
def test_eligible_sizes(sizes: CardSizes, request_: Request, eligible: set[int]) -> None:
    """The sizes of all cards that the request may land on; none where one is unknown."""
    assert sizes.eligible_mib(request_) == eligible


@pytest.mark.parametrize(
    ("part", "eligible", "amounts"),
    [
        (Slice("main", 1, 250, None, 250), {A100_80}, Amounts(250, 20480)),
        (Slice("main", 1, 333, None, 333), {A100_80}, Amounts(333, 27279)),
        (Slice("main", 1, 1, None, 1), {T4}, Amounts(1, 15)),
        (Slice("main", 1, 1000, None, 1000), {H100}, Amounts(1000, H100)),
        (Slice("main", 1, 250, None, 250), set(), Amounts(250, None)),
        (Slice("main", 1, 250, None, 250), {T4, H100}, Amounts(250, None)),
        (Slice("main", 1, None, 4096, None), {16384}, Amounts(250, 4096)),
        (Slice("main", 1, None, 4097, None), {16384}, Amounts(250, 4097)),
        (Slice("main", 1, None, 1, None), {81920}, Amounts(1, 1)),
        (Slice("main", 1, None, 99999, None), {81920}, Amounts(1000, 99999)),
        (Slice("main", 1, None, 4096, None), set(), Amounts(None, 4096)),
        (Slice("main", 1, None, 4096, None), {T4, H100}, Amounts(None, 4096)),
        (Slice("main", 1, 500, 8192, None), {T4}, Amounts(500, 8192)),
        (Slice("main", 1, 500, 8192, None), set(), Amounts(500, 8192)),
    ],
)
def test_amounts(part: Slice, eligible: set[int], amounts: Amounts) -> None:
    """Where one size is sure, share and memory follow from each other, rounded down."""
    assert resolve(part, frozenset(eligible)) == amounts


@pytest.mark.parametrize(
    ("part", "eligible", "warning"),
    [
        (
            Slice("main", 1, 250, None, 250),
            {81920},
            (
                "container main: 25% of a GPU's memory is 20480 MiB (GPUs have 81920 MiB by "
                "configuration)"
            ),
        ),
        (
            Slice("main", 1, 125, None, 125),
            set(),
            (
                "container main: 12.5% of a GPU's memory becomes MiB when a GPU is chosen "
                "(the GPU's memory size is not configured)"
            ),
        ),
        (
            Slice("main", 1, 250, None, 250),
            {15360, 81920},
            (
                "container main: 25% of a GPU's memory becomes MiB when a GPU is chosen (2 "
                "memory sizes are eligible)"
            ),
        ),
        (
            Slice("main", 1, None, 4096, None),
            {16384},
            "container main: 4096 MiB comes with 25% of a GPU's compute",
        ),
        (
            Slice("main", 1, None, 4096, None),
            set(),
            (
                "container main: the compute share follows the memory when a GPU is chosen (the "
                "GPU's memory size is not configured)"
            ),
        ),
        (Slice("main", 1, 500, 8192, None), {16384}, None),
        (Slice("main", 1, 500, 8192, None), set(), None),
    ],
)
def test_the_user_is_told_what_was_worked_out(
    part: Slice, eligible: set[int], warning: str | None
) -> None:
    """Which size was used, or why none could be; nothing where both were given."""
    sizes = frozenset(eligible)
    assert describe(part, resolve(part, sizes), sizes) == warning
