"""What no annotation may say, and how its author is told."""

from collections.abc import Mapping

import pytest

from gpu_fraction.domain.request import Bounds, Refused
from gpu_fraction.domain.user_annotations import parse
from tests.builders.pods import container, pod, typed
from tests.unit.domain.annotated_pod import read

SHARE = "a share above 0 and up to 1 with at most three decimals (0.25 or 25%)"
FRACTION = f"{SHARE}, or a whole number of GPUs (1, 2, 4)"
MEMORY = "an amount above 0 with a unit (8Gi, 8000Mi) or a plain number of MiB"
KNOWN = (
    "known: gpu-fraction, gpu-memory, gpu-cores, gpu-fraction-num-devices, "
    "gpu-fraction-container-name, gpu-fraction.dev/gpu-model, gpu-fraction.dev/gpu-uuid, "
    "gpu-fraction.dev/placement, gpu-fraction.dev/isolation, gpu-fraction.dev/container.<name>"
)


def refusals(annotations: Mapping[str, str], bounds: Bounds | None = None) -> list[str]:
    """Every problem, as its author reads it."""
    with pytest.raises(Refused) as refused:
        read(annotations, bounds)
    assert str(refused.value) == "; ".join(map(str, refused.value.problems))
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        pytest.param(
            {"gpu-fraction": "1.5"},
            'metadata.annotations[gpu-fraction]: "1.5" is more than one GPU but '
            f"not a whole number; allowed: {FRACTION}",
            id="above-one",
        ),
        pytest.param(
            {"gpu-fraction": "0"},
            f'metadata.annotations[gpu-fraction]: "0" is zero; allowed: {FRACTION}',
            id="zero",
        ),
        pytest.param(
            {"gpu-fraction": "-0.5"},
            f'metadata.annotations[gpu-fraction]: "-0.5" is negative; allowed: {FRACTION}',
            id="negative",
        ),
        pytest.param(
            {"gpu-fraction": "NaN"},
            f'metadata.annotations[gpu-fraction]: "NaN" is not a number; allowed: {FRACTION}',
            id="nan",
        ),
        pytest.param(
            {"gpu-fraction": "0.0001"},
            'metadata.annotations[gpu-fraction]: "0.0001" is too fine, the smallest step is '
            f"0.001 of a GPU; allowed: {FRACTION}",
            id="too-fine",
        ),
        pytest.param(
            {"gpu-fraction": ""},
            f'metadata.annotations[gpu-fraction]: "" is not a number; allowed: {FRACTION}',
            id="empty",
        ),
        pytest.param(
            {"gpu-fraction": "٠.٥"},
            'metadata.annotations[gpu-fraction]: "\\u0660.\\u0665" is not a number; '
            f"allowed: {FRACTION}",
            id="other-digits-are-shown-escaped",
        ),
        pytest.param(
            {"gpu-fraction": '0.5"\n; all is well'},
            'metadata.annotations[gpu-fraction]: "0.5\\"\\n; all is well" is not a number; '
            f"allowed: {FRACTION}",
            id="a-value-cannot-forge-a-message",
        ),
        pytest.param(
            {"gpu-fraction": "x" * 65},
            f'metadata.annotations[gpu-fraction]: "{"x" * 64}..." is not a number; '
            f"allowed: {FRACTION}",
            id="a-long-value-is-cut",
        ),
        pytest.param(
            {"gpu-memory": "8GB"},
            'metadata.annotations[gpu-memory]: "8GB" is not an amount of memory; '
            f"allowed: {MEMORY}",
            id="memory",
        ),
        pytest.param(
            {"gpu-memory": "512Ki"},
            f'metadata.annotations[gpu-memory]: "512Ki" is less than 1Mi; allowed: {MEMORY}',
            id="memory-too-small",
        ),
        pytest.param(
            {"gpu-memory": "2Ti"},
            'metadata.annotations[gpu-memory]: "2Ti" is 2097152 MiB, more than any card has; '
            "allowed: at most 1024Gi on each GPU",
            id="memory-beyond-any-card",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-cores": "2"},
            f'metadata.annotations[gpu-cores]: "2" is more than one GPU; allowed: {SHARE}',
            id="cores",
        ),
        pytest.param(
            {"gpu-cores": "0.5"},
            "metadata.annotations[gpu-cores]: needs gpu-fraction or gpu-memory beside it",
            id="cores-alone",
        ),
        pytest.param(
            {"gpu-fraction-num-devices": "2"},
            "metadata.annotations[gpu-fraction-num-devices]: needs gpu-fraction or gpu-memory "
            "beside it",
            id="count-alone",
        ),
        pytest.param(
            {"gpu-fraction-container-name": "main"},
            "metadata.annotations[gpu-fraction-container-name]: needs gpu-fraction or gpu-memory "
            "beside it",
            id="container-alone",
        ),
        pytest.param(
            {"gpu-fraction.dev/container.side": "0.5", "gpu-cores": "0.5"},
            "metadata.annotations[gpu-cores]: needs gpu-fraction or gpu-memory beside it",
            id="cores-beside-a-containers-own-share",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "1.2"},
            'metadata.annotations[gpu-fraction-num-devices]: "1.2" is not a whole number of 1 or '
            "more; allowed: a whole number of 1 or more",
            id="count",
        ),
        pytest.param(
            {"gpu-fraction": "2", "gpu-fraction-num-devices": "2"},
            'metadata.annotations[gpu-fraction-num-devices]: contradicts gpu-fraction "2", which '
            "already counts GPUs; give one of the two, or a share of at most 1",
            id="two-counts",
        ),
        pytest.param(
            {"gpu-fraction": "17"},
            'metadata.annotations[gpu-fraction]: "17" is more GPUs than any node has; '
            "allowed: at most 16",
            id="more-cards-than-any-node",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "17"},
            'metadata.annotations[gpu-fraction-num-devices]: "17" is more GPUs than any node has; '
            "allowed: at most 16",
            id="more-shares-than-any-node",
        ),
        pytest.param(
            {"gpu-fraction.dev/container.side": "17"},
            'metadata.annotations[gpu-fraction.dev/container.side]: "17" is more GPUs than any '
            "node has; allowed: at most 16",
            id="more-cards-for-one-container",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction-container-name": "sid"},
            'metadata.annotations[gpu-fraction-container-name]: the pod has no container "sid"; '
            'did you mean "side"?; its containers: main, side, other, proxy',
            id="unknown-container",
        ),
        pytest.param(
            {"gpu-fraction.dev/container.mian": "0.5"},
            "metadata.annotations[gpu-fraction.dev/container.mian]: the pod has no container "
            '"mian"; did you mean "main"?; its containers: main, side, other, proxy',
            id="unknown-own-container",
        ),
        pytest.param(
            {"gpu-fraction.dev/container.": "0.5"},
            'metadata.annotations[gpu-fraction.dev/container.]: the pod has no container ""; '
            "its containers: main, side, other, proxy",
            id="no-container-name",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction-container-name": "fetch"},
            'metadata.annotations[gpu-fraction-container-name]: container "fetch" is an '
            "initContainer; only regular containers and sidecars (init containers with "
            "restartPolicy: Always) may hold a GPU",
            id="init-container",
        ),
        pytest.param(
            {"gpu-fraction.dev/container.fetch": "0.5"},
            'metadata.annotations[gpu-fraction.dev/container.fetch]: container "fetch" is an '
            "initContainer; only regular containers and sidecars (init containers with "
            "restartPolicy: Always) may hold a GPU",
            id="own-init-container",
        ),
        pytest.param(
            {"gpu-fraction.dev/container.side": "1.5"},
            'metadata.annotations[gpu-fraction.dev/container.side]: "1.5" is more than one '
            f"GPU but not a whole number; allowed: {FRACTION}",
            id="own-share",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/container.main": "0.25"},
            'metadata.annotations[gpu-fraction.dev/container.main]: container "main" already gets '
            "the pod's gpu-fraction or gpu-memory; give it one share",
            id="one-container-twice",
        ),
        pytest.param(
            {"gpu-fractions": "0.5"},
            "metadata.annotations[gpu-fractions]: not a known annotation; did you mean "
            f'"gpu-fraction"?; {KNOWN}',
            id="unknown-short-key",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-modell": "A100"},
            "metadata.annotations[gpu-fraction.dev/gpu-modell]: not a known annotation; did you "
            f'mean "gpu-fraction.dev/gpu-model"?; {KNOWN}',
            id="unknown-long-key",
        ),
        pytest.param(
            {"gpu-fraction.dev": "0.5"},
            "metadata.annotations[gpu-fraction.dev]: not a known annotation; did you mean "
            f'"gpu-fraction"?; {KNOWN}',
            id="the-group-without-a-name",
        ),
        pytest.param(
            {"gpu-fraction.dev/zzzzzzzz": "1"},
            f"metadata.annotations[gpu-fraction.dev/zzzzzzzz]: not a known annotation; {KNOWN}",
            id="nothing-near",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-model": ""},
            'metadata.annotations[gpu-fraction.dev/gpu-model]: "" is not a GPU model; allowed: '
            "models (A100,H100) or models to avoid (!T4,!P4)",
            id="no-model",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-model": "A100,"},
            'metadata.annotations[gpu-fraction.dev/gpu-model]: "" is not a GPU model; allowed: '
            "models (A100,H100) or models to avoid (!T4,!P4)",
            id="a-comma-too-many",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-model": "!"},
            'metadata.annotations[gpu-fraction.dev/gpu-model]: "" is not a GPU model; allowed: '
            "models (A100,H100) or models to avoid (!T4,!P4)",
            id="avoid-nothing",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-model": "A100;H100"},
            'metadata.annotations[gpu-fraction.dev/gpu-model]: "A100;H100" is not a GPU model; '
            "allowed: models (A100,H100) or models to avoid (!T4,!P4)",
            id="model",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-model": "A100,!T4"},
            'metadata.annotations[gpu-fraction.dev/gpu-model]: "A100,!T4" names models to take '
            "and models to avoid; allowed: models (A100,H100) or models to avoid (!T4,!P4), "
            "not both",
            id="take-and-avoid",
        ),
        pytest.param(
            {
                "gpu-fraction": "0.5",
                "gpu-fraction.dev/gpu-model": ",".join(f"M{i}" for i in range(65)),
            },
            "metadata.annotations[gpu-fraction.dev/gpu-model]: names more than 64",
            id="too-many-models",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-uuid": "0"},
            'metadata.annotations[gpu-fraction.dev/gpu-uuid]: "0" is not a GPU UUID; allowed: '
            "GPU-<id> or MIG-<id> as nvidia-smi -L prints them, separated by commas",
            id="uuid",
        ),
        pytest.param(
            {"gpu-fraction": "2", "gpu-fraction.dev/gpu-uuid": "GPU-1"},
            "metadata.annotations[gpu-fraction.dev/gpu-uuid]: names 1 card(s), but a container "
            "asks for 2",
            id="fewer-cards-than-asked",
        ),
        pytest.param(
            {"gpu-fraction": "2", "gpu-fraction.dev/gpu-uuid": "GPU-1,GPU-1"},
            "metadata.annotations[gpu-fraction.dev/gpu-uuid]: names 1 card(s), but a container "
            "asks for 2",
            id="one-card-twice",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/placement": "spraed"},
            'metadata.annotations[gpu-fraction.dev/placement]: "spraed" is not known; did you '
            'mean "spread"?; allowed: binpack, spread, topology',
            id="placement",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/isolation": "yes"},
            'metadata.annotations[gpu-fraction.dev/isolation]: "yes" is not known; '
            "allowed: required, preferred, none",
            id="isolation",
        ),
        pytest.param(
            {"gpu-fraction.dev/placement": "spread"},
            "metadata.annotations[gpu-fraction.dev/placement]: asks for no GPU by itself; "
            "add gpu-fraction or gpu-memory",
            id="no-share-at-all",
        ),
    ],
)
def test_refusal(annotations: dict[str, str], expected: str) -> None:
    """One problem, one sentence: the field, what was given, what is allowed."""
    assert refusals(annotations) == [expected]


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
            "metadata.annotations: 65 keys (gpu-*, gpu-fraction.dev/*) ask for GPUs; "
            "allowed: at most 64"
        )
    ]


def test_what_is_meant_is_looked_for_where_it_will_be_read() -> None:
    """A message shows five problems; the nearest word is the dear part of one."""
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
            'metadata.annotations[gpu-memory]: "16385" is 16385 MiB, more than any card has; '
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
