"""What is written for a stack of units and steps is read back as the request, for all requests."""

import copy

import jsonpatch
from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.domain import sizes
from gpu_fraction.domain.admission import Rules, admit
from gpu_fraction.domain.backends import BackendConfig, configured, demand
from gpu_fraction.domain.request import Bounds, Refused, Slice
from gpu_fraction.domain.resource_backend import ResourceBackend
from gpu_fraction.domain.sizes import Amounts, CardSizes
from gpu_fraction.domain.user_annotations import parse
from tests.builders.pods import pod, typed

RULES = Rules(bounds=Bounds(max_memory_mib=1 << 20))
TABLES = sorted(
    name
    for name, stack in configured(BackendConfig()).items()
    if isinstance(stack, ResourceBackend)
)

shares = st.integers(1, 1000).map(lambda milli: f"{milli / 1000:.3f}")


@st.composite
def asked(draw: st.DrawFn) -> dict[str, str]:
    """A share or an amount of memory, with compute or without, of some cards."""
    if draw(st.booleans()):
        made = {"gpu-memory": str(draw(st.integers(1, 90000)))}
    else:
        made = {"gpu-fraction": draw(st.one_of(shares, st.just("1")))}
    if draw(st.booleans()):
        made["gpu-cores"] = draw(shares)
    made["gpu-fraction-num-devices"] = str(draw(st.sampled_from([1, 1, 1, 2, 3])))
    return made


@given(
    asked(),
    st.sampled_from(TABLES),
    st.sampled_from([None, 16384, 15360, 81559]),
    st.sampled_from([1, 7, 1024]),
    st.sampled_from(["GiB", "MiB"]),
)
def test_a_rendered_request_is_read_back(
    annotations: dict[str, str], name: str, card_mib: int | None, factor: int, unit: str
) -> None:
    """Within the stack's unit: never less than is promised, and less than one unit more."""
    own = {"volcano_memory_factor": factor, "gpushare_memory_unit": unit}
    stacks = configured(BackendConfig(CardSizes(card_mib), own=own))
    stack = stacks[name]
    assert isinstance(stack, ResourceBackend)
    raw = pod(annotations)
    try:
        verdict = admit(typed(raw), stack, RULES)
    except Refused:
        return
    after = typed(jsonpatch.JsonPatch(verdict.operations).apply(copy.deepcopy(raw)))
    request = parse(typed(raw), RULES.bounds)
    found = stack.read(after)
    assert request is not None
    assert found is not None
    ((part,), (read,)) = request.slices, found.slices
    promised = sizes.resolve(part, frozenset([card_mib] if card_mib else []))
    within(stack, part, promised, read, card_mib)
    cost = demand(after, stacks)
    assert cost.cards == part.cards
    assert cost.core_milli == (read.core_milli or 0) * part.cards
    assert cost.memory_mib == (read.memory_mib or 0) * part.cards


def within(
    stack: ResourceBackend, part: Slice, promised: Amounts, read: Slice, card_mib: int | None
) -> None:
    """The read amounts are the promised ones, rounded up to the stack's unit."""
    assert read.cards == part.cards
    if read.core_milli is not None and promised.core_milli is not None:
        assert 0 <= read.core_milli - promised.core_milli < 10 * stack.compute_step
    if read.memory_milli is not None:
        # Percents, or a whole card.
        least = part.memory_milli
        assert least is not None
        assert 0 <= read.memory_milli - least < 10
        return
    step, mib = stack.step_mib(), promised.memory_mib
    assert read.memory_mib is not None
    assert mib is not None
    if part.memory_milli == 1000:
        # All that the stack counts of the card.
        assert max(step, mib - step + 1) <= read.memory_mib <= max(step, mib)
    else:
        assert 0 <= read.memory_mib - mib < step
        assert card_mib is None or read.memory_mib <= card_mib
