"""Cards, nodes and asks, for examples and for Hypothesis."""

from collections.abc import Iterable, Sequence
from random import Random

from hypothesis import strategies as st

from gpu_fraction.domain import inventory
from gpu_fraction.domain.placement import Ask, CardState, Share, empty

MODELS = ("NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "Tesla T4")


def card(index: int = 0, **fields: object) -> inventory.Card:
    """One card of 16 GiB."""
    known: dict[str, object] = {
        "uuid": f"GPU-{index}",
        "index": index,
        "model": "Tesla T4",
        "memory_mib": 16384,
    }
    return inventory.Card(**{**known, **fields})  # type: ignore[arg-type]


def node(count: int = 4, **fields: object) -> tuple[CardState, ...]:
    """A node of equal, empty cards."""
    return empty(card(index, **fields) for index in range(count))


def taken(
    cards: Sequence[CardState], shares: Iterable[tuple[int, int, int]]
) -> tuple[CardState, ...]:
    """The cards after (column, milli-cores, MiB) were given away."""
    after = list(cards)
    for column, core_milli, memory_mib in shares:
        after[column] = after[column].less(Share(core_milli, memory_mib))
    return tuple(after)


def seeds() -> st.SearchStrategy[Random]:
    """A source of choices, in one draw.

    A cluster is hundreds of choices; drawing each by Hypothesis takes a hundred times as
    long as judging the cluster does.
    """
    return st.integers(0, 2**32).map(Random)


@st.composite
def nodes(draw: st.DrawFn, name: str = "n", most: int = 6) -> tuple[CardState, ...]:
    """A node of up to ``most`` cards in any state, overcommitted ones among them."""
    return random_node(draw(seeds()), draw(st.integers(0, most)), name)


def random_node(rng: Random, count: int, name: str = "n") -> tuple[CardState, ...]:
    """A node of that many cards of one or two models, partly given away."""
    uuids = [f"GPU-{name}-{at}" for at in range(count)]
    models = rng.choices(MODELS, k=2)
    cards = []
    for at, uuid in enumerate(uuids):
        enforces = rng.random() < 0.5
        near = [other for other in uuids if other != uuid and rng.random() < 0.5]
        cards.append(
            inventory.Card(
                uuid=uuid,
                index=at,
                model=rng.choice(models),
                memory_mib=rng.choice([0, 1, 1000, 16384, 81559, 81559]),
                core_milli=rng.choice([0, 7, 500, 1000, 1000, 1000, 3000]),
                slots=rng.choice([0, 1, 2, 32, 32]),
                numa=rng.randint(-1, 1),
                healthy=rng.random() < 0.9,
                enforces_memory=enforces,
                enforces_compute=enforces and rng.random() < 0.5,
                parent=rng.choice(["", "", "", f"GPU-{name}"]),
                parent_memory_mib=rng.choice([0, 81559, 143771]),
                links={other: rng.choice([0, 1, 5, 200, 9000]) for other in near},
            )
        )
    shares = [
        (rng.randrange(count), rng.randint(0, 600), rng.choice([1, 500, 8000, 20000]))
        for _ in range(rng.randint(0, 2 * count))
    ]
    return taken(empty(cards), shares)


@st.composite
def asks(draw: st.DrawFn, names: Sequence[str] = ("n",)) -> tuple[Ask, ...]:
    """The asks of a pod of one to three containers."""
    return random_asks(draw(seeds()), draw(st.integers(1, 3)), names)


def random_asks(rng: Random, count: int, names: Sequence[str] = ("n",)) -> tuple[Ask, ...]:
    """The asks of a pod of that many containers."""
    policy = rng.choice(["binpack", "spread", "topology"])
    isolation = rng.choice(["required", "preferred", "none"])
    wanted = rng.choice([(), (), ("T4",), ("A100", "H100")])
    unwanted = () if wanted else rng.choice([(), (), ("T4",)])
    some = [f"GPU-{name}-{at}" for name in names for at in range(6) if rng.random() < 0.5]
    uuids = tuple(rng.choice([[], [], some, [f"GPU-{names[0]}"]]))
    asks = []
    for at in range(count):
        by_share = rng.random() < 0.5
        asks.append(
            Ask(
                container=f"c{at}",
                cards=rng.choice([1, 1, 1, 2, 3, 5]),
                core_milli=rng.choice([*([] if by_share else [None]), 0, 1, 250, 500, 1000]),
                memory_mib=None if by_share else rng.choice([1, 500, 8000, 16384]),
                memory_milli=rng.choice([1, 250, 500, 1000]) if by_share else None,
                most_mib=rng.choice([None, 8192, 40960]) if by_share else None,
                models_in=wanted,
                models_out=unwanted,
                uuids=uuids,
                placement=policy,  # type: ignore[arg-type]
                isolation=isolation,  # type: ignore[arg-type]
            )
        )
    return tuple(asks)
