"""Of any request: one template each, whose name costs what the request asks."""

from hypothesis import given
from hypothesis import strategies as st

from gpu_fraction.domain import claim_template, units
from gpu_fraction.domain.admission import Rules, admit
from gpu_fraction.domain.backends import BACKENDS, BackendConfig, demand
from gpu_fraction.domain.claim_template import Shape
from gpu_fraction.domain.demand import ZERO, Demand
from gpu_fraction.domain.request import Bounds, Refused, Request, Slice
from gpu_fraction.domain.sizes import CardSizes
from tests.builders.pods import Raw, typed
from tests.builders.strategies import asking_pods, requests
from tests.property.test_admission import applied

sizes = st.lists(st.integers(1, 1 << 20), min_size=1, max_size=8, unique=True).map(
    lambda found: tuple(sorted(found))
)
RULES = Rules(bounds=Bounds(max_memory_mib=1 << 20))
FLEET = CardSizes(None, {"T4": 15360, "H100": 81559, "A100-80GB": 81920})


def cost_of(part: Slice, sizes_mib: tuple[int, ...]) -> Demand:
    """The most that a share costs on cards of these sizes."""
    if part.memory_mib is None:
        cores = (part.core_milli or 0) * part.cards
        return Demand(part.cards, cores, 0, (part.memory_milli or 0) * part.cards)
    smallest = min(sizes_mib)
    cores = part.core_milli or max(1, min(1000, part.memory_mib * 1000 // smallest))
    return Demand(part.cards, cores * part.cards, part.memory_mib * part.cards)


@given(requests(), sizes)
def test_a_name_is_legal_and_tells_the_shape(
    request: Request, given_sizes: tuple[int, ...]
) -> None:
    """At most 253 characters of a DNS subdomain, and the specification is proved by it."""
    for part in request.slices:
        shape = Shape(part, given_sizes if part.memory_mib is not None else ())
        made = claim_template.template(shape, request)
        assert len(made.name) <= 253
        assert all(c.isascii() and (c.isdigit() or c.islower() or c == "-") for c in made.name)
        read = claim_template.parse(made.name)
        assert read is not None
        assert (read.words, read.demand) == (shape.words, cost_of(part, shape.sizes_mib))
        assert claim_template.proves(made.name, made.spec)


@given(requests(), requests(), sizes)
def test_templates_of_one_name_are_one(
    one: Request, other: Request, given_sizes: tuple[int, ...]
) -> None:
    """Different specifications have different names, and equal ones the same."""
    found = [
        claim_template.template(
            Shape(part, given_sizes if part.memory_mib is not None else ()), request
        )
        for request in (one, other)
        for part in request.slices
    ]
    for a in found:
        for b in found:
            assert (a.name == b.name) is (a.spec == b.spec)


@given(asking_pods(), st.sampled_from([CardSizes(), CardSizes(81920), FLEET]))
def test_a_rendered_pod_costs_what_it_asked(raw: Raw, card_sizes: CardSizes) -> None:
    """Of the most expensive of the cards that it may get; and templates are those it names."""
    backend = BACKENDS["dra"](BackendConfig(card_sizes))
    try:
        verdict = admit(typed(raw), backend, RULES)
    except Refused:
        return
    assert verdict.request is not None
    after = typed(applied(raw, verdict.operations))
    eligible = card_sizes.eligible_mib(verdict.request)
    expected = ZERO
    for part in verdict.request.slices:
        expected += cost_of(part, tuple(s for s in eligible if s >= (part.memory_mib or 0)))
    assert demand(after) == expected
    read = backend.read(after)
    assert read is not None
    assert [(s.container, s.cards, s.memory_mib, s.memory_milli) for s in read.slices] == sorted(
        ((s.container, s.cards, s.memory_mib, s.memory_milli) for s in verdict.request.slices),
        key=lambda s: [c.container for c in read.slices].index(s[0]),
    )
    assert max((s.core_milli or 0) for s in read.slices) <= units.MILLI
