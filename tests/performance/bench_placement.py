"""Filter and prioritize of a whole cluster: time a pod and memory of the process.

Writes a section of docs/performance.md; asserts nothing. Run by ``make bench``. The memory is
that of the whole extender: its server and client are loaded, though not used.

- *decide*: filter and prioritize on the state, the pod unlike the one before and the cluster
  changed by a bind in between, so that nothing is remembered.
- *call*: the same with decoding kube-scheduler's two bodies and encoding both answers.
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import msgspec

from gpu_fraction.domain import inventory
from gpu_fraction.domain.assignment import CardShare, render
from gpu_fraction.domain.placement import Ask
from gpu_fraction.scheduler.app import ExtenderService
from gpu_fraction.scheduler.extender import Extender
from gpu_fraction.scheduler.objects import read_cards
from gpu_fraction.scheduler.state import ClusterState
from gpu_fraction.scheduler.wire import FilterArgs
from tests.builders import pods
from tests.performance import report

GOAL_MS = 5.0
GOAL_MIB = 200.0
CARD_MIB = 81559

CASES: tuple[tuple[str, tuple[Ask, ...]], ...] = (
    ("a quarter, binpack", (Ask("main", memory_milli=250, core_milli=250),)),
    ("8 GiB, spread", (Ask("main", memory_mib=8192, placement="spread"),)),
    (
        "a quarter of an H100",
        (Ask("main", core_milli=250, memory_milli=250, models_in=("H100",)),),
    ),
    (
        "a quarter, isolation preferred",
        (Ask("main", core_milli=250, memory_milli=250, isolation="preferred"),),
    ),
    ("2 whole cards, topology", (Ask("main", 2, 1000, memory_milli=1000, placement="topology"),)),
    ("4 whole cards, topology", (Ask("main", 4, 1000, memory_milli=1000, placement="topology"),)),
    ("2 containers", (Ask("a", memory_mib=2048), Ask("b", memory_milli=500, core_milli=100))),
    (
        "8 containers that nearly fit",
        tuple(
            Ask(f"c{at}", memory_mib=60000 - at * 5000, core_milli=350 + at * 60)
            for at in range(8)
        ),
    ),
    ("fits nowhere", (Ask("main", memory_mib=CARD_MIB + 1),)),
)


@dataclass(frozen=True)
class Row:
    """One case's figures: medians of wall clock and processor time, milliseconds."""

    case: str
    fitting: int
    decide_ms: float
    decide_cpu_ms: float
    call_ms: float
    call_cpu_ms: float


def main() -> int:
    """Build a cluster, time every case, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--cards", type=int, default=8)
    parser.add_argument("--pods", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    bare_mib = rss_mib()
    sys.stdout.write(f"{ExtenderService.__name__} loaded: {bare_mib:.0f} MiB\n")
    started = time.perf_counter()
    state = ClusterState()
    names = fill(state, args.nodes, args.cards, args.pods)
    state.table()
    built_s = time.perf_counter() - started
    rows = [measure(state, names, case, asks, args.rounds) for case, asks in CASES]
    report.write_section(
        "placement",
        "Scheduling: filter and prioritize of a large cluster",
        f"`make bench`: {args.nodes:,} nodes x {args.cards} cards, {args.pods:,} pods that hold "
        f"cards; medians of {args.rounds} rounds, with a bind between any two. "
        "*Decide* is filter and prioritize on the state; *call* adds decoding the scheduler's two "
        f"bodies and encoding both answers. Goals: below {GOAL_MS:g} ms of processor time to "
        f"decide, below {GOAL_MIB:.0f} MB. *Nearly fit* is the most "
        f"expensive kind of pod: the search is bounded.\n\nMachine: {report.machine()}.\n\n"
        + report.table(
            ["pod", "fits on nodes", "decide ms", "of it CPU", "call ms", "of it CPU", "goal"],
            [line(row) for row in rows],
        )
        + f"\n\nPeak memory {rss_mib():.0f} MiB, {bare_mib:.0f} MiB of it before the first "
        f"node; loaded in {built_s:.1f} s.",
    )
    return 0


def fill(state: ClusterState, nodes: int, cards: int, held: int) -> list[str]:
    """Nodes of two models, and pods that hold a share of one card each."""
    rng = Random(7)
    names = [f"gpu-node-{at:05}.eu-west-1.compute.internal" for at in range(nodes)]
    for at, name in enumerate(names):
        uuids = [f"GPU-{at:08x}-0000-4000-8000-{card:012x}" for card in range(cards)]
        model = "NVIDIA H100 80GB HBM3" if at % 3 else "NVIDIA A100-SXM4-80GB"
        listed = tuple(
            inventory.Card(
                uuid=uuid,
                index=card,
                model=model,
                memory_mib=CARD_MIB if at % 3 else CARD_MIB - 639,
                numa=card * 2 // cards,
                enforces_memory=at % 2 == 0,
                links={other: 1800 for other in uuids if other != uuid},
            )
            for card, uuid in enumerate(uuids)
        )
        state.node_changed(name, *read_cards(pods.inventory_of(listed)))
    decoder = msgspec.json.Decoder(FilterArgs)
    for number in range(held):
        at, card = rng.randrange(nodes), rng.randrange(cards)
        uuid = f"GPU-{at:08x}-0000-4000-8000-{card:012x}"
        milli = rng.choice([100, 250, 500])
        share = CardShare(uuid, milli, CARD_MIB * milli // 1000)
        manifest = pods.asking_manifest(
            f"pod-{number}",
            Ask("main", memory_milli=milli, core_milli=milli),
            node=names[at],
            assigned=render({"main": (share,)}),
            phase="Running",
        )
        # Through JSON, as from the watch, so that no two pods share a string.
        body = msgspec.json.encode({"Pod": manifest, "NodeNames": []})
        state.pod_changed(decoder.decode(body).pod)
    return names


def measure(
    state: ClusterState, names: list[str], case: str, asks: tuple[Ask, ...], rounds: int
) -> Row:
    """Time one case."""
    extender = Extender(state)
    decoder = msgspec.json.Decoder(FilterArgs)
    manifest = pods.asking_manifest("pending", *asks)
    fitting: list[str] = []
    churn = Churn(state, names)

    def decide() -> None:
        nonlocal fitting
        info = state.info(pods.scheduler_pod("pending", *asks))
        assert not info.problem
        fitting = extender.filter(info, names).node_names or []
        extender.prioritize(info, fitting)

    decided = timed(churn, decide, rounds)
    filter_body = msgspec.json.encode({"Pod": manifest, "NodeNames": names})
    score_body = msgspec.json.encode({"Pod": manifest, "NodeNames": fitting})

    def call() -> None:
        args = decoder.decode(filter_body)
        msgspec.json.encode(extender.filter(state.info(args.pod), args.node_names or []))
        if fitting:
            args = decoder.decode(score_body)
            msgspec.json.encode(extender.prioritize(state.info(args.pod), args.node_names or []))

    return Row(case, len(fitting), *decided, *timed(churn, call, rounds))


def timed(
    before: Callable[[], None], work: Callable[[], None], rounds: int
) -> tuple[float, float]:
    """Median wall clock and processor time of the work, milliseconds."""
    wall, cpu = [], []
    for _ in range(rounds):
        before()
        started, spent = time.perf_counter(), time.process_time()
        work()
        wall.append((time.perf_counter() - started) * 1e3)
        cpu.append((time.process_time() - spent) * 1e3)
    return statistics.median(wall), statistics.median(cpu)


class Churn:
    """A bind or an end between two pods, so that the table has changed."""

    def __init__(self, state: ClusterState, names: list[str]) -> None:
        self._state = state
        self._names = names
        self._turn = 0

    def __call__(self) -> None:
        """Bind or end one pod."""
        self._turn += 1
        node = self._names[self._turn * 37 % len(self._names)]
        info = self._state.info(
            pods.scheduler_pod(f"churn-{self._turn}", Ask("main", memory_mib=1))
        )
        card = self._state.cards(node)[0]
        share = CardShare(card.uuid, 1, 1)
        self._state.send(info, node, {"main": (share,)}, 0.0)
        self._state.refused(info.uid, node)


def line(row: Row) -> list[str]:
    """A row of the table."""
    figures = (row.decide_ms, row.decide_cpu_ms, row.call_ms, row.call_cpu_ms)
    verdict = "held" if row.decide_cpu_ms < GOAL_MS else "missed"
    return [row.case, str(row.fitting), *(f"{figure:.2f}" for figure in figures), verdict]


def rss_mib() -> float:
    """Peak resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
