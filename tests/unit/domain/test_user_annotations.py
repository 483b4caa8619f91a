"""What each annotation means."""

import pytest

from gpu_fraction.domain import keys
from gpu_fraction.domain.request import Bounds, Request, Slice
from gpu_fraction.domain.user_annotations import asks, parse
from tests.builders.pods import container, pod, typed
from tests.unit.domain.annotated_pod import read, share


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        pytest.param({"gpu-fraction": "0.25"}, share("main", 250), id="share"),
        pytest.param({"gpu-fraction": "25%"}, share("main", 250), id="percent"),
        pytest.param({"gpu-fraction": "1"}, share("main", 1000), id="one-card"),
        pytest.param({"gpu-fraction": "2"}, share("main", 1000, 2), id="two-cards"),
        pytest.param(
            {"gpu-memory": "8Gi"},
            Slice("main", 1, core_milli=None, memory_mib=8192, memory_milli=None),
            id="memory-alone-compute-follows",
        ),
        pytest.param(
            {"gpu-memory": "8000"},
            Slice("main", 1, core_milli=None, memory_mib=8000, memory_milli=None),
            id="memory-plain-is-mib",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-memory": "8Gi"},
            Slice("main", 1, core_milli=500, memory_mib=8192, memory_milli=None),
            id="memory-replaces-the-memory-share",
        ),
        pytest.param(
            {"gpu-fraction": "2", "gpu-memory": "8Gi"},
            Slice("main", 2, core_milli=1000, memory_mib=8192, memory_milli=None),
            id="memory-is-per-card",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-cores": "0.3"},
            Slice("main", 1, core_milli=300, memory_mib=None, memory_milli=500),
            id="cores-differ-from-memory",
        ),
        pytest.param(
            {"gpu-memory": "8Gi", "gpu-cores": "30%"},
            Slice("main", 1, core_milli=300, memory_mib=8192, memory_milli=None),
            id="cores-beside-memory",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-memory": "8Gi", "gpu-cores": "0.3"},
            Slice("main", 1, core_milli=300, memory_mib=8192, memory_milli=None),
            id="all-three",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"},
            share("main", 500, 2),
            id="share-on-each-of-two-cards",
        ),
        pytest.param(
            {"gpu-fraction": "1", "gpu-fraction-num-devices": "4"},
            share("main", 1000, 4),
            id="whole-cards-by-count",
        ),
        pytest.param(
            {"gpu-memory": "4Gi", "gpu-fraction-num-devices": "2"},
            Slice("main", 2, core_milli=None, memory_mib=4096, memory_milli=None),
            id="memory-on-each-of-two-cards",
        ),
        pytest.param(
            {"gpu-fraction": "0.25", "gpu-fraction-container-name": "side"},
            share("side", 250),
            id="another-container",
        ),
        pytest.param(
            {"gpu-fraction": "0.25", "gpu-fraction-container-name": "proxy"},
            share("proxy", 250),
            id="a-sidecar",
        ),
        pytest.param({"gpu-fraction.dev/container.side": "0.25"}, share("side", 250), id="own"),
        pytest.param({"gpu-fraction.dev/container.side": "2"}, share("side", 1000, 2), id="own-2"),
        pytest.param({"gpu-fraction.dev/container.proxy": "50%"}, share("proxy", 500), id="own-%"),
    ],
)
def test_one_slice(annotations: dict[str, str], expected: Slice) -> None:
    """Each way to ask for one container's share, with its defaults."""
    assert read(annotations) == Request(slices=(expected,))


def test_several_containers_come_in_the_pods_order() -> None:
    """Shares of several containers, however their annotations are ordered."""
    request = read(
        {
            "gpu-fraction.dev/container.proxy": "0.1",
            "gpu-fraction.dev/container.other": "1",
            "gpu-fraction": "0.25",
            "gpu-fraction.dev/container.side": "0.5",
        }
    )
    assert request.slices == (
        share("main", 250),
        share("side", 500),
        share("other", 1000),
        share("proxy", 100),
    )
    assert request.of("side") == share("side", 500)
    assert request.of("fetch") is None


@pytest.mark.parametrize(
    ("annotation", "field", "expected"),
    [
        ({"gpu-fraction.dev/gpu-model": "A100"}, "models", ("A100",)),
        ({"gpu-fraction.dev/gpu-model": "A100,H100"}, "models", ("A100", "H100")),
        ({"gpu-fraction.dev/gpu-model": " A100 , H100 "}, "models", ("A100", "H100")),
        ({"gpu-fraction.dev/gpu-model": "A100,A100"}, "models", ("A100",)),
        ({"gpu-fraction.dev/gpu-model": "NVIDIA RTX 6000"}, "models", ("NVIDIA RTX 6000",)),
        ({"gpu-fraction.dev/gpu-model": "!T4"}, "not_models", ("T4",)),
        ({"gpu-fraction.dev/gpu-model": "!T4, !P4"}, "not_models", ("T4", "P4")),
        ({"gpu-fraction.dev/gpu-uuid": "GPU-1a2b"}, "uuids", ("GPU-1a2b",)),
        ({"gpu-fraction.dev/gpu-uuid": "GPU-1,MIG-2"}, "uuids", ("GPU-1", "MIG-2")),
        ({"gpu-fraction.dev/gpu-uuid": "MIG-GPU-1/2/0"}, "uuids", ("MIG-GPU-1/2/0",)),
        ({"gpu-fraction.dev/placement": "binpack"}, "placement", "binpack"),
        ({"gpu-fraction.dev/placement": "spread"}, "placement", "spread"),
        ({"gpu-fraction.dev/placement": "topology"}, "placement", "topology"),
        ({"gpu-fraction.dev/isolation": "required"}, "isolation", "required"),
        ({"gpu-fraction.dev/isolation": "preferred"}, "isolation", "preferred"),
        ({"gpu-fraction.dev/isolation": "none"}, "isolation", "none"),
    ],
)
def test_choice_of_cards(annotation: dict[str, str], field: str, expected: object) -> None:
    """Models, cards, placement and isolation, beside a share."""
    request = read({"gpu-fraction": "0.5", **annotation})
    assert getattr(request, field) == expected


def test_defaults_come_from_the_configuration() -> None:
    """Placement and isolation that nobody wrote."""
    request = read({"gpu-fraction": "0.5"}, Bounds(placement="spread", isolation="required"))
    assert (request.placement, request.isolation) == ("spread", "required")
    written = read(
        {
            "gpu-fraction": "0.5",
            "gpu-fraction.dev/placement": "binpack",
            "gpu-fraction.dev/isolation": "none",
        },
        Bounds(placement="spread", isolation="required"),
    )
    assert (written.placement, written.isolation) == ("binpack", "none")


def test_other_peoples_keys_do_not_count() -> None:
    """Nor do the system's."""
    others = {f"example.com/gpu-{i}": "" for i in range(100)}
    asked = {f"gpu-fraction.dev/container.c{i}": "0.1" for i in range(64)}
    made = pod({**others, **asked, keys.REQUEST: "x"}, *(container(f"c{i}") for i in range(64)))
    request = parse(typed(made), Bounds())
    assert request is not None
    assert len(request.slices) == 64


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"example.com/gpu-fraction": "0.5"},
        {"gpufraction": "0.5"},
        {"GPU-fraction": "0.5"},
        {"not-gpu-fraction": "0.5"},
        {"nvidia.com/gpu-model": "A100"},
        {"gpu-x/y": "other people's domain"},
    ],
)
def test_other_peoples_keys_are_left_alone(annotations: dict[str, str]) -> None:
    """Keys of another domain or another word ask nothing of us."""
    made = typed(pod(annotations))
    assert parse(made, Bounds()) is None
    assert not asks(made.annotations())


@pytest.mark.parametrize(
    "key", [*keys.USER_KEYS, *keys.SYSTEM_KEYS, "gpu-new", "gpu-fraction.dev/x"]
)
def test_any_key_of_ours_makes_the_pod_ours_to_judge(key: str) -> None:
    """Known or not, written by users or by the system."""
    assert asks({key: "x"})


def test_system_keys_alone_ask_for_nothing() -> None:
    """A pod that only carries what the system wrote has no request of its own."""
    made = pod({keys.REQUEST: "x", keys.ASSIGNED: "y"})
    assert parse(typed(made), Bounds()) is None


def test_telling_frameworks_is_no_part_of_the_request() -> None:
    """Those who write the variables read the annotation themselves."""
    off = {keys.FRAMEWORK_ENV: "off"}
    assert read({"gpu-fraction": "0.5", **off}) == read({"gpu-fraction": "0.5"})


def test_no_annotations_at_all() -> None:
    """Pods without annotations are the common case."""
    assert parse(typed(pod()), Bounds()) is None
