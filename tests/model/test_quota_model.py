"""The quota's rules hold in every order of steps, and each of them is needed."""

import pytest

from tests.model.quota_model import SMALL, BrokenInvariantError, Setting, explore


@pytest.mark.parametrize("setting", SMALL, ids=str)
def test_no_order_of_steps_breaks_the_budget(setting: Setting) -> None:
    """``live <= used + reserved <= hard`` in every state, and nothing stays without pods."""
    assert explore(setting) > 1000


@pytest.mark.parametrize(
    ("rule", "replicas", "names"),
    [
        ("compare-and-swap", 2, ""),
        ("monotonic-count", 1, ""),
        ("reserve-until-seen", 1, ""),
        ("wait-for-request", 1, ""),
        ("fresh-refusal", 1, ""),
        ("one-pod-a-name", 1, "aa"),
    ],
)
def test_without_any_of_the_rules_a_fault_is_found(rule: str, replicas: int, names: str) -> None:
    """The model finds the fault that each rule is there to prevent."""
    with pytest.raises(BrokenInvariantError):
        explore(Setting((1, 1), hard=1, replicas=replicas, broken=rule, names=names))
