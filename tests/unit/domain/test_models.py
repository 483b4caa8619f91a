"""Which product names a user's model pattern means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.domain import models


@pytest.mark.parametrize(
    ("pattern", "model"),
    [
        ("A100", "NVIDIA A100-SXM4-80GB"),
        ("a100-sxm4", "NVIDIA A100-SXM4-80GB"),
        ("A100 SXM4 80gb", "NVIDIA A100-SXM4-80GB"),
        ("T4", "Tesla T4"),
        ("RTX-6000", "NVIDIA RTX 6000 Ada Generation"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),
        (" H100 ", "NVIDIA H100 PCIe"),
    ],
)
def test_whole_words_in_order_match(pattern: str, model: str) -> None:
    """Words may be joined by a space or a hyphen, in any case."""
    assert models.matches(pattern, model)


@pytest.mark.parametrize(
    ("pattern", "model"),
    [
        ("T4", "Tesla T40"),
        ("T4", "Tesla XT4"),
        ("A10", "NVIDIA A100-SXM4-80GB"),
        ("A100 80GB", "NVIDIA A100-SXM4-80GB"),
        ("SXM4-A100", "NVIDIA A100-SXM4-80GB"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100"),
        ("", "Tesla T4"),
        (" - ", "Tesla T4"),
        ("T4", ""),
    ],
)
def test_parts_of_words_gaps_and_other_orders_do_not_match(pattern: str, model: str) -> None:
    """A model is never mistaken for another whose name only contains the same letters."""
    assert not models.matches(pattern, model)


@given(st.lists(st.from_regex(r"[A-Za-z0-9]{1,6}", fullmatch=True), min_size=1, max_size=5))
def test_every_run_of_a_names_words_matches_it(words: list[str]) -> None:
    """Whatever the name, each contiguous run of its words is a pattern for it."""
    model = " ".join(words)
    for start in range(len(words)):
        for stop in range(start + 1, len(words) + 1):
            assert models.matches("-".join(words[start:stop]), model)


def test_an_excluded_model_is_refused_even_if_also_included() -> None:
    """Exclusion wins; without an inclusion any other model passes."""
    assert models.allowed("Tesla T4", (), ("A100",))
    assert models.allowed("Tesla T4", ("T4",), ())
    assert not models.allowed("Tesla T4", ("A100", "H100"), ())
    assert not models.allowed("Tesla T4", ("Tesla",), ("T4",))
