"""What a refusal of annotations says: every problem, what was meant, and nothing else."""

import pytest

from gpu_fraction.domain.request import Bounds, Refused
from gpu_fraction.domain.user_annotations import parse
from tests.builders.pods import container, pod, typed
from tests.unit.domain.annotated_pod import read, refusals


def test_every_problem_is_named_at_once() -> None:
    """Nobody has to mend one problem to hear of the next."""
    told = refusals(
        {
            "gpu-fraction": "1.5",
            "gpu-memory": "lots",
            "gpu-cores": "0",
            "gpu-fraction-num-devices": "none",
            "gpu-fraction-container-name": "who",
            "gpu-fraction.dev/container.fetch": "x",
            "gpu-fraction.dev/gpu-model": "?",
            "gpu-fraction.dev/gpu-uuid": "?",
            "gpu-fraction.dev/placement": "?",
            "gpu-fraction.dev/isolation": "?",
            "gpu-x": "?",
        }
    )
    named = {line.partition("]")[0].removeprefix("metadata.annotations[") for line in told}
    assert named == {
        "gpu-fraction",
        "gpu-memory",
        "gpu-cores",
        "gpu-fraction-num-devices",
        "gpu-fraction-container-name",
        "gpu-fraction.dev/container.fetch",
        "gpu-fraction.dev/gpu-model",
        "gpu-fraction.dev/gpu-uuid",
        "gpu-fraction.dev/placement",
        "gpu-fraction.dev/isolation",
        "gpu-x",
    }


def test_more_keys_than_anybody_needs_are_refused_unread() -> None:
    """Each wrong one costs time to explain, and a request has room for 200,000 of them."""
    bad = {f"gpu-fraction.dev/container.c{i}x": "?" for i in range(64)}
    assert len(refusals(bad)) == 2 * 64
    assert refusals({**bad, "gpu-typo": ""}) == [
        (
            "metadata.annotations: 65 GPU annotations (gpu-*, gpu-fraction.dev/*); "
            "allowed: at most 64"
        )
    ]


def test_what_is_meant_is_looked_for_where_it_will_be_read() -> None:
    """A message shows five problems; the nearest word is the expensive part."""
    told = refusals({f"gpu-fractio{i}": "" for i in range(7)})
    assert ["did you mean" in line for line in told] == [True] * 5 + [False] * 2


def test_names_of_strangers_neither_flood_nor_forge_a_message() -> None:
    """The API server looks at names after us, so that they may hold anything of any length."""
    long = "a" * 100_000
    made = pod(
        {f"gpu-fraction.dev/container.{long}": "?", "gpu-fraction-container-name": "b"},
        container(long + "b"),
        container("b\nforged: line"),
    )
    with pytest.raises(Refused) as refused:
        parse(typed(made), Bounds())
    for problem in refused.value.problems:
        assert "\n" not in str(problem)
        assert len(str(problem)) < 1000


def test_bounds_are_configuration() -> None:
    """What exceeds the configured node or card is refused, and the bound itself is not."""
    small = Bounds(max_cards=2, max_memory_mib=16384)
    assert read({"gpu-fraction": "2", "gpu-memory": "16Gi"}, small).slices[0].cards == 2
    assert refusals({"gpu-fraction": "3", "gpu-memory": "16385"}, small) == [
        (
            'metadata.annotations[gpu-fraction]: "3" is more GPUs than any node has; '
            "allowed: at most 2"
        ),
        (
            'metadata.annotations[gpu-memory]: "16385" is 16385 MiB, more than any GPU has; '
            "allowed: at most 16Gi on each GPU"
        ),
    ]


@pytest.mark.parametrize("key", ["gpu-fraction.dev/requests", "gpu-fraction.dev/assigne"])
def test_nobody_is_pointed_at_a_system_key(key: str) -> None:
    """Users may not write those, so they are no suggestion."""
    (told,) = refusals({key: "x"})
    assert "did you mean" not in told


def test_a_pod_without_containers_is_refused() -> None:
    """It cannot exist, and must not crash us before the API server says so."""
    made = pod({"gpu-fraction": "0.5"})
    made["spec"]["containers"] = []
    with pytest.raises(Refused):
        parse(typed(made), Bounds())


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("gpu-fraction.dev/gpu-memory", "gpu-memory"),
        ("gpu-fraction.dev/gpu-fraction", "gpu-fraction"),
        ("gpu-placement", "gpu-fraction.dev/placement"),
        ("gpu-fraction.dev/contaner.main", "gpu-fraction.dev/container.<name>"),
        ("gpu-core", "gpu-cores"),
    ],
)
def test_a_key_under_the_wrong_prefix_is_recognised(key: str, meant: str) -> None:
    """The prefix that all keys share says nothing about which was meant."""
    (told,) = refusals({key: "x"})
    assert f'did you mean "{meant}"?' in told


def test_a_share_for_an_ephemeral_container_is_refused() -> None:
    """They may have no resources, so they can hold no GPU."""
    made = pod(
        {"gpu-fraction": "0.5", "gpu-fraction-container-name": "debug"},
        ephemeral=[container("debug")],
    )
    with pytest.raises(Refused, match='container "debug" is an ephemeralContainer'):
        parse(typed(made), Bounds())
