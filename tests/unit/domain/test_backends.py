"""What each GPU-sharing stack gets for the same annotations."""

import itertools
from collections.abc import Mapping

import pytest

from gpu_fraction.domain import keys, models
from gpu_fraction.domain.backends import BACKENDS, BackendConfig, configured
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Toleration
from gpu_fraction.domain.request import Bounds
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.domain.user_annotations import parse
from tests.builders.pods import container, pod, typed

UNKNOWN = BackendConfig()
CARD_16G = BackendConfig(card_sizes=CardSizes(16384))


def render(
    backend: str, annotations: Mapping[str, str], config: BackendConfig = UNKNOWN
) -> PodEdit:
    """The edit of a pod with containers main and side."""
    made = typed(pod(annotations, container("main"), container("side")))
    request = parse(made, Bounds())
    assert request is not None
    return BACKENDS[backend](config).render(request, made)


def refusals(
    backend: str, annotations: Mapping[str, str], config: BackendConfig = UNKNOWN
) -> list[str]:
    """Why the stack cannot give it."""
    return [str(problem) for problem in render(backend, annotations, config).problems]


def native(slot: str = "1", core: str | None = None, mem: str | None = None) -> dict[str, str]:
    """Native resources, those that are set."""
    names = {
        "gpu-fraction.dev/slot": slot,
        "gpu-fraction.dev/core-milli": core,
        "gpu-fraction.dev/memory-mib": mem,
    }
    return {name: amount for name, amount in names.items() if amount is not None}


@pytest.mark.parametrize(
    ("annotations", "config", "resources"),
    [
        ({"gpu-fraction": "0.25"}, UNKNOWN, native(core="250")),
        ({"gpu-fraction": "0.25"}, CARD_16G, native(core="250", mem="4096")),
        ({"gpu-fraction": "0.333"}, CARD_16G, native(core="333", mem="5455")),
        ({"gpu-fraction": "1"}, UNKNOWN, native(core="1k")),
        ({"gpu-fraction": "1"}, CARD_16G, native(core="1k", mem="16384")),
        ({"gpu-fraction": "2"}, CARD_16G, native(core="2k", mem="32768")),
        ({"gpu-memory": "4Gi"}, UNKNOWN, native(mem="4096")),
        ({"gpu-memory": "4Gi"}, CARD_16G, native(core="250", mem="4096")),
        ({"gpu-fraction": "0.5", "gpu-memory": "4Gi"}, UNKNOWN, native(core="500", mem="4096")),
        ({"gpu-fraction": "0.5", "gpu-memory": "4Gi"}, CARD_16G, native(core="500", mem="4096")),
        ({"gpu-fraction": "0.5", "gpu-cores": "0.3"}, CARD_16G, native(core="300", mem="8192")),
        (
            {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"},
            CARD_16G,
            native(core="1k", mem="16384"),
        ),
        (
            {"gpu-memory": "4Gi", "gpu-fraction-num-devices": "2"},
            UNKNOWN,
            native(mem="8192"),
        ),
    ],
)
def test_native(
    annotations: dict[str, str], config: BackendConfig, resources: dict[str, str]
) -> None:
    """One slot whatever the number of cards; compute and memory over all cards."""
    edit = render("native", annotations, config)
    assert edit.resources == {"main": resources}
    assert edit.scheduler_name == "gpu-fraction-scheduler"
    assert edit.runtime_class_name is None
    assert set(edit.annotations) == {"gpu-fraction.dev/request"}


@pytest.mark.parametrize(
    ("annotations", "config", "resources"),
    [
        pytest.param(
            {"gpu-fraction": "0.25"},
            UNKNOWN,
            {
                "nvidia.com/gpu": "1",
                "nvidia.com/gpumem-percentage": "25",
                "nvidia.com/gpucores": "25",
            },
            id="a-quarter",
        ),
        pytest.param(
            {"gpu-memory": "4Gi"},
            UNKNOWN,
            {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "4096"},
            id="memory",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "2"},
            UNKNOWN,
            {
                "nvidia.com/gpu": "2",
                "nvidia.com/gpumem-percentage": "50",
                "nvidia.com/gpucores": "50",
            },
            id="two-halves",
        ),
        pytest.param(
            {"gpu-fraction": "0.25"},
            CARD_16G,
            {
                "nvidia.com/gpu": "1",
                "nvidia.com/gpumem-percentage": "25",
                "nvidia.com/gpucores": "25",
            },
            id="a-quarter-fits-whatever-size-is-configured",
        ),
        pytest.param(
            {"gpu-fraction": "0.125"},
            CARD_16G,
            {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "2048", "nvidia.com/gpucores": "13"},
            id="an-eighth-of-a-known-card",
        ),
        pytest.param(
            {"gpu-memory": "4Gi"},
            CARD_16G,
            {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "4096", "nvidia.com/gpucores": "25"},
            id="memory-of-a-known-card",
        ),
        pytest.param(
            {"gpu-fraction": "1"},
            UNKNOWN,
            {
                "nvidia.com/gpu": "1",
                "nvidia.com/gpumem-percentage": "100",
                "nvidia.com/gpucores": "100",
            },
            id="a-whole-card",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-cores": "0.3"},
            UNKNOWN,
            {
                "nvidia.com/gpu": "1",
                "nvidia.com/gpumem-percentage": "50",
                "nvidia.com/gpucores": "30",
            },
            id="cores-of-their-own",
        ),
    ],
)
def test_hami(
    annotations: dict[str, str], config: BackendConfig, resources: dict[str, str]
) -> None:
    """A count of cards and amounts for each; never both forms of memory."""
    edit = render("hami", annotations, config)
    assert edit.resources == {"main": resources}
    assert edit.scheduler_name == "hami-scheduler"


def test_hami_rounds_up_to_whole_percents_and_says_so() -> None:
    """Zero would mean no limit to it."""
    edit = render("hami", {"gpu-fraction": "0.001", "gpu-cores": "12.5%"})
    assert edit.resources["main"] == {
        "nvidia.com/gpu": "1",
        "nvidia.com/gpumem-percentage": "1",
        "nvidia.com/gpucores": "13",
    }
    assert edit.warnings[-2:] == (
        "container main: 0.1% of memory is rounded up to 1%, HAMi knows whole percents",
        "container main: 12.5% of compute is rounded up to 13%, HAMi knows whole percents",
    )


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (
            {},
            {
                "hami.io/node-scheduler-policy": "binpack",
                "hami.io/gpu-scheduler-policy": "binpack",
            },
        ),
        (
            {keys.PLACEMENT: "spread"},
            {
                "hami.io/node-scheduler-policy": "spread",
                "hami.io/gpu-scheduler-policy": "spread",
            },
        ),
        ({keys.PLACEMENT: "topology"}, {"hami.io/gpu-scheduler-policy": "topology-aware"}),
    ],
)
def test_hami_placement(annotations: dict[str, str], expected: dict[str, str]) -> None:
    """In HAMi's own words."""
    edit = render("hami", {"gpu-fraction": "0.5", **annotations})
    hami = {k: v for k, v in edit.annotations.items() if k.startswith("hami.io/")}
    assert hami == expected


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({keys.MODEL: "H100,L20"}, {"nvidia.com/use-gputype": "H100,L20"}),
        (
            {keys.MODEL: "A10,A100"},
            {
                "nvidia.com/use-gputype": "A10,A100",
                "nvidia.com/nouse-gputype": "A1000,A100X,A10G,A10M",
            },
        ),
        (
            {keys.MODEL: "H100-80GB"},
            {"nvidia.com/use-gputype": "H100-80GB,H100 80GB"},
        ),
        ({keys.MODEL: "!T4,!P4"}, {"nvidia.com/nouse-gputype": "T4,P4"}),
        ({keys.UUID: "GPU-1,GPU-2"}, {"nvidia.com/use-gpuuuid": "GPU-1,GPU-2"}),
    ],
)
def test_hami_choice_of_cards(annotations: dict[str, str], expected: dict[str, str]) -> None:
    """Models and cards become HAMi's annotations."""
    edit = render("hami", {"gpu-fraction": "0.5", **annotations})
    chosen = {k: v for k, v in edit.annotations.items() if k.startswith("nvidia.com/")}
    assert chosen == expected


def test_hami_is_kept_off_models_whose_names_hold_the_wanted_one() -> None:
    """It compares parts of names; the user is told, because no list of names is complete."""
    edit = render("hami", {"gpu-fraction": "0.5", keys.MODEL: "H20"})
    assert edit.annotations["nvidia.com/nouse-gputype"] == "GH200,H200"
    assert edit.warnings[-1] == (
        "HAMi looks for H20 anywhere in a card's name: nvidia.com/nouse-gputype keeps the pod off "
        "GH200, H200; other names that hold it are not told apart"
    )
    sizes = BackendConfig(CardSizes(by_model_mib={"H20": 98304, "H20-Z": 98304, "XH20": 98304}))
    edit = render("hami", {"gpu-fraction": "0.5", keys.MODEL: "H20"}, sizes)
    assert edit.annotations["nvidia.com/nouse-gputype"] == "GH200,H200,XH20"


@pytest.mark.parametrize(
    ("wanted", "card", "other"),
    [
        ("NVIDIA A10", "NVIDIA A10", "NVIDIA A100-SXM4-40GB"),
        ("NVIDIA-H20", "NVIDIA H20", "NVIDIA H200"),
        ("Tesla P4", "Tesla P4", "Tesla P40"),
        ("Quadro P400", "Quadro P400", "Quadro P4000"),
        ("RTX A500", "NVIDIA RTX A500", "NVIDIA RTX A5000"),
        ("NVIDIA-A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"),
        ("NVIDIA-H100-80GB-HBM3", "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe"),
    ],
)
def test_names_of_several_words_mean_one_model_on_hami(wanted: str, card: str, other: str) -> None:
    """Also in the form of the label nvidia.com/gpu.product, with hyphens alone."""
    annotations = render("hami", {"gpu-fraction": "0.5", keys.MODEL: wanted}).annotations
    assert hami_takes(annotations, card)
    assert not hami_takes(annotations, other)
    assert models.matches(wanted, card)


def test_hami_keeps_pods_off_more_than_they_avoid_and_says_so() -> None:
    """A name to avoid cannot be made narrower."""
    edit = render("hami", {"gpu-fraction": "0.5", keys.MODEL: "!A10"})
    assert edit.annotations["nvidia.com/nouse-gputype"] == "A10"
    assert edit.warnings[-1] == (
        "HAMi looks for A10 anywhere in a card's name: the pod stays off A100, A1000, A100X, "
        "A10G, A10M too"
    )
    assert len(render("hami", {"gpu-fraction": "0.5", keys.MODEL: "!H100"}).warnings) == 1


def hami_takes(annotations: Mapping[str, str], card: str) -> bool:
    """HAMi pkg/device/devices.go, CheckType."""
    wanted, avoided = (
        [t.upper() for t in annotations.get(key, "").split(",") if t]
        for key in ("nvidia.com/use-gputype", "nvidia.com/nouse-gputype")
    )
    name = card.upper()
    return (not wanted or any(t in name for t in wanted)) and not any(t in name for t in avoided)


def test_a_wanted_model_means_the_same_on_hami() -> None:
    """For every two models that are known, in the names that NVML gives cards."""
    for first, second in itertools.combinations_with_replacement(models.KNOWN, 2):
        wanted = (first, second)
        edit = render("hami", {"gpu-fraction": "0.5", keys.MODEL: ",".join(wanted)})
        for model in models.KNOWN:
            for card in (f"NVIDIA {model}", f"NVIDIA {model}-PCIE-40GB", f"Tesla {model} PCIe"):
                expected = models.allowed(card, wanted, ())
                # A100 cannot be avoided beside A100X.
                if expected or not (model in first or model in second):
                    assert hami_takes(edit.annotations, card) is expected, (wanted, card)


TAINTS = {
    "amd": ("amd.com/gpu",),
    "bitfusion": (),  # its GPUs are remote
    "intel": ("gpu.intel.com/i915", "gpu.intel.com/xe"),
    "orionx": (),
}


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_pods_tolerate_the_taint_of_gpu_nodes(backend: str) -> None:
    """As the API server's plugin ExtendedResourceToleration does for the resource."""
    edit = render(backend, {"gpu-fraction": "1"})
    assert edit.tolerations == tuple(
        Toleration(key, "Exists", effect="NoSchedule")
        for key in TAINTS.get(backend, ("nvidia.com/gpu",))
    )


@pytest.mark.parametrize(("isolation", "off"), [("none", True), ("preferred", False)])
def test_hami_isolation_is_switched_off_only_on_request(isolation: str, off: bool) -> None:
    """HAMi enforces shares unless the container says otherwise."""
    edit = render("hami", {"gpu-fraction": "0.5", keys.ISOLATION: isolation})
    assert (edit.env["main"].get("CUDA_DISABLE_CONTROL") == "true") is off
    assert edit.env["main"]["GPU_FRACTION"] == "0.5"


@pytest.mark.parametrize(
    ("annotations", "count"),
    [
        ({"gpu-fraction": "1"}, "1"),
        ({"gpu-fraction": "100%"}, "1"),
        ({"gpu-fraction": "2"}, "2"),
        ({"gpu-fraction": "1", "gpu-fraction-num-devices": "4"}, "4"),
    ],
)
@pytest.mark.parametrize("config", [UNKNOWN, CARD_16G])
def test_nvidia_gives_whole_cards(
    annotations: dict[str, str], count: str, config: BackendConfig
) -> None:
    """A count, with nothing to say about sizes, and no scheduler of its own."""
    edit = render("nvidia", annotations, config)
    assert edit.resources == {"main": {"nvidia.com/gpu": count}}
    assert edit.scheduler_name is None
    assert edit.warnings == ()


@pytest.mark.parametrize(
    ("annotations", "key"),
    [
        ({"gpu-fraction": "0.25"}, "gpu-fraction"),
        ({"gpu-fraction": "99.9%"}, "gpu-fraction"),
        ({"gpu-memory": "4Gi"}, "gpu-memory"),
        ({"gpu-fraction": "1", "gpu-memory": "4Gi"}, "gpu-fraction"),
        ({"gpu-fraction": "1", "gpu-cores": "0.5"}, "gpu-fraction"),
        ({"gpu-fraction.dev/container.main": "0.5"}, "gpu-fraction.dev/container.main"),
    ],
)
def test_nvidia_refuses_parts_of_cards(annotations: dict[str, str], key: str) -> None:
    """With the reason and with what would pass."""
    assert refusals("nvidia", annotations) == [
        (
            f"metadata.annotations[{key}]: container main asks for a part of a GPU, but this "
            'cluster gives whole GPUs only (backend nvidia); allowed: gpu-fraction "1", "2", … '
            "without gpu-memory and gpu-cores"
        )
    ]


@pytest.mark.parametrize(
    "annotation", [{keys.MODEL: "A100"}, {keys.MODEL: "!T4"}, {keys.UUID: "GPU-1"}]
)
def test_nvidia_cannot_choose_cards(annotation: dict[str, str]) -> None:
    """The kubelet picks; the message says what to use instead."""
    (key,) = annotation
    assert refusals("nvidia", {"gpu-fraction": "1", **annotation}) == [
        (
            f"metadata.annotations[{key}]: cannot be honoured: NVIDIA device plugin cannot choose "
            "among cards; use a nodeSelector on the label nvidia.com/gpu.product"
        )
    ]


def test_nvidia_says_that_placement_is_ignored() -> None:
    """It does no harm, so it is a warning; a default that nobody wrote is not worth one."""
    edit = render("nvidia", {"gpu-fraction": "1", keys.PLACEMENT: "spread"})
    assert edit.warnings == (
        ("gpu-fraction.dev/placement is ignored: NVIDIA device plugin chooses the cards itself"),
    )


@pytest.mark.parametrize("backend", ["native", "hami"])
def test_more_memory_than_the_largest_card_is_refused(backend: str) -> None:
    """Such a pod would wait for ever; all eligible sizes count, and an exact fit passes."""
    config = BackendConfig(CardSizes(by_model_mib={"T4": 15360, "H100": 81920}))
    assert render(backend, {"gpu-memory": "81920"}, config).resources
    assert refusals(backend, {"gpu-memory": "81921"}, config) == [
        (
            "metadata.annotations[gpu-memory]: container main requests 81921 MiB on one GPU, but "
            "the largest eligible GPU has 81920 MiB"
        )
    ]
    only_t4 = {"gpu-memory": "16Gi", keys.MODEL: "T4"}
    assert refusals(backend, only_t4, config) == [
        (
            "metadata.annotations[gpu-memory]: container main requests 16384 MiB on one GPU, but "
            "the largest eligible GPU has 15360 MiB"
        )
    ]


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_every_backend_shares_the_rest(backend: str) -> None:
    """Request annotation, runtime class, and the variables that tell a container its share."""
    config = BackendConfig(
        CardSizes(16384),
        "nvidia",
        {"NVIDIA_DRIVER_CAPABILITIES": "all", "GPU_FRACTION": "own"},
        {"nvidia_mig_model": "A30"},
    )
    edit = render(backend, {"gpu-fraction.dev/container.side": "1"}, config)
    assert edit.annotations[keys.REQUEST] == (
        f'{{"v":1,"backend":"{backend}","containers":[{{"name":"side","cards":1,'
        '"coreMilli":1000,"memoryMilli":1000}],"placement":"binpack","isolation":"preferred"}'
    )
    assert edit.runtime_class_name == "nvidia"
    assert set(edit.resources) == {"side"}
    assert {key: text for key, text in edit.env["side"].items() if "ORION" not in key} == {
        "GPU_FRACTION": "own",
        "GPU_MEMORY_LIMIT_MIB": "21504" if backend == "nvidia-mig" else "16384",
        "NVIDIA_DRIVER_CAPABILITIES": "all",
    }


@pytest.mark.parametrize("backend", ["native", "hami"])
def test_variables_say_what_is_known(backend: str) -> None:
    """The share of each card, and its MiB where a number could be worked out."""
    two = {"gpu-fraction": "0.125", "gpu-fraction-num-devices": "2"}
    assert render(backend, two).env == {"main": {"GPU_FRACTION": "0.125"}}
    assert render(backend, two, CARD_16G).env == {
        "main": {"GPU_FRACTION": "0.125", "GPU_MEMORY_LIMIT_MIB": "2048"}
    }
    assert render(backend, {"gpu-memory": "4Gi"}).env == {"main": {"GPU_MEMORY_LIMIT_MIB": "4096"}}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (UNKNOWN, "becomes MiB when a GPU is chosen"),
        (CARD_16G, "4096 MiB (GPUs have 16384 MiB by configuration)"),
    ],
)
@pytest.mark.parametrize("backend", ["native", "hami"])
def test_a_warning_says_which_size_was_used(
    backend: str, config: BackendConfig, said: str
) -> None:
    """Or that none was known."""
    (warning,) = render(backend, {"gpu-fraction": "0.25"}, config).warnings
    assert said in warning


def test_several_containers_get_their_own() -> None:
    """Each container its resources and variables; the others none."""
    edit = render(
        "native",
        {"gpu-fraction": "0.25", "gpu-fraction.dev/container.side": "2"},
        CARD_16G,
    )
    assert edit.resources == {
        "main": native(core="250", mem="4096"),
        "side": native(core="2k", mem="32768"),
    }
    assert edit.env["side"] == {"GPU_FRACTION": "1", "GPU_MEMORY_LIMIT_MIB": "16384"}


def test_the_backends_are_known_by_name() -> None:
    """The word in the configuration is the word in the request annotation."""
    assert {name: made.name for name, made in configured(UNKNOWN).items()} == {
        name: name for name in BACKENDS
    }
    assert next(iter(BACKENDS)) == "native"
