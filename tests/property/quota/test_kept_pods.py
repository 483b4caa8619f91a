"""The controller charges a pod from what it keeps of it, the webhook from all of it."""

import msgspec
from hypothesis import given, settings

from gpu_fraction.domain.backends import BackendConfig, configured, demand
from gpu_fraction.quota.pods import PodRecord
from tests.builders.pods import Raw, typed
from tests.builders.strategies import own_settings, stack_pods


@settings(max_examples=max(300, settings().max_examples))
@given(stack_pods(), own_settings)
def test_what_is_kept_costs_the_same(raw: Raw, own: dict[str, object]) -> None:
    """For every stack, whatever its settings are."""
    stacks = configured(BackendConfig(own=own))
    kept = msgspec.convert(raw, PodRecord).pod()
    assert demand(kept, stacks) == demand(typed(raw), stacks)
