"""Pods, annotations and requests for property tests.

``asking_pods`` are pods that may be admitted; ``hostile_pods`` hold anything that still is a
pod on the wire.
"""

from typing import Any, Final

from hypothesis import strategies as st

from gpu_fraction.domain import dra, hami_devices, keys
from gpu_fraction.domain.backends import CHARGED_BY, SETTINGS
from gpu_fraction.domain.hami_vendors import VENDORS
from gpu_fraction.domain.request import ISOLATIONS, PLACEMENTS, Request, Slice
from tests.builders.pods import Raw

NAMES: Final = ("main", "side", "other", "proxy", "late")
RESOURCES: Final = (
    *keys.NATIVE_RESOURCES,
    "nvidia.com/gpu",
    "nvidia.com/gpumem",
    "nvidia.com/gpumem-percentage",
    "nvidia.com/gpucores",
    "nvidia.com/gpu.shared",
    "nvidia.com/mig-1g.10gb",
    "nvidia.com/mig-3g.20gb.me",
    "amd.com/gpu",
    "amd.com/cpx_nps4",
    *dra.EXTENDED_RESOURCES,
    "bitfusion.io/gpu",
    "deviceclass.resource.kubernetes.io/gpu.nvidia.com",
    "gpu.intel.com/xe",
    "virtaitech.com/gpu",
)
CLAIMS: Final = ("gpu-fraction-0", "gpu-fraction-1")
TEMPLATES: Final = (
    f"gpu-fraction-250c-250m-{'0' * 32}",
    f"gpu-fraction-10240mi-of-24576-81920-x2-{'a' * 32}",
    f"gpu-fraction-whole-{'1' * 32}",
)

# No lone surrogates: JSON on the wire cannot carry them.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)

shares = st.one_of(
    st.integers(1, 1000).map(lambda milli: f"{milli / 1000:.3f}"),
    st.integers(1, 1000).map(lambda milli: f"{milli // 10}.{milli % 10}%"),
    st.sampled_from(["0.25", "0.5", "1", "25%", "100%"]),
)
fractions = st.one_of(shares, st.integers(1, 16).map(str))
memories = st.one_of(
    st.integers(1, 1 << 16).map(str),
    st.integers(1, 80).map("{}Gi".format),
    st.integers(1, 80000).map("{}Mi".format),
    st.integers(2, 80000).map("{}M".format),
)
models = st.lists(
    st.sampled_from(["A100", "H100", "T4", "RTX 6000"]), min_size=1, max_size=3, unique=True
)


@st.composite
def pod_level_shares(draw: st.DrawFn) -> dict[str, str]:
    """``gpu-fraction``, ``gpu-memory`` and their companions, for the first container."""
    asked = {}
    if draw(st.booleans()):
        asked[keys.FRACTION] = draw(fractions)
    if keys.FRACTION not in asked or draw(st.booleans()):
        asked[keys.MEMORY] = draw(memories)
    if draw(st.booleans()):
        asked[keys.CORES] = draw(shares)
    counts = asked.get(keys.FRACTION, "1").isdigit() and asked.get(keys.FRACTION) != "1"
    if not counts and draw(st.booleans()):
        asked[keys.NUM_DEVICES] = str(draw(st.integers(1, 16)))
    if draw(st.booleans()):
        asked[keys.CONTAINER_NAME] = "main"
    return asked


@st.composite
def asking_annotations(draw: st.DrawFn, others: tuple[str, ...] = ()) -> dict[str, str]:
    """Annotations that ask for at least one GPU; ``others`` are containers beside main."""
    asked = draw(pod_level_shares())
    for name in others:
        if draw(st.booleans()):
            asked[keys.CONTAINER_PREFIX + name] = draw(fractions)
    if draw(st.booleans()):
        mark = draw(st.sampled_from(["", "!"]))
        asked[keys.MODEL] = ",".join(mark + model for model in draw(models))
    if draw(st.booleans()):
        asked[keys.UUID] = ",".join(f"GPU-{i}" for i in range(16))
    if draw(st.booleans()):
        asked[keys.PLACEMENT] = draw(st.sampled_from(PLACEMENTS))
    if draw(st.booleans()):
        asked[keys.ISOLATION] = draw(st.sampled_from(ISOLATIONS))
    return asked


@st.composite
def plain_containers(draw: st.DrawFn, name: str) -> Raw:
    """A container that does not request a GPU by itself, with every form of its parents."""
    made: Raw = {"name": name, "image": "busybox"}
    amounts = st.sampled_from([None, {}, {"cpu": "1"}, {"cpu": "100m", "example.com/a~b": "1"}])
    if draw(st.booleans()):
        resources = {"limits": draw(amounts), "requests": draw(amounts)}
        made["resources"] = draw(
            st.sampled_from([None, {}, resources, {"limits": resources["limits"]}])
        )
    if draw(st.booleans()):
        variables = st.sampled_from(["A", "GPU_FRACTION", "GPU_MEMORY_LIMIT_MIB", "CUDA_X"])
        made["env"] = draw(
            st.one_of(
                st.none(),
                st.lists(st.fixed_dictionaries({"name": variables, "value": text}), max_size=3),
            )
        )
    return made


@st.composite
def asking_pods(draw: st.DrawFn) -> Raw:
    """Pods that every guard lets pass and that ask for GPUs in some way."""
    others = draw(st.sampled_from([(), ("side",), ("side", "other")]))
    sidecars = draw(st.sampled_from([(), ("proxy",)]))
    spec: dict[str, Any] = {
        "containers": [draw(plain_containers(name)) for name in ("main", *others)],
    }
    if sidecars:
        made = [draw(plain_containers(name)) for name in ("setup", *sidecars)]
        made[1]["restartPolicy"] = "Always"
        spec["initContainers"] = made
    spec.update(
        draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "schedulerName": st.sampled_from(["", "default-scheduler"]),
                    "runtimeClassName": st.sampled_from(["", "kata"]),
                    "volumes": st.just([{"name": "v", "hostPath": {"path": "/data"}}]),
                    "newField": st.just({"not": ["known", 1]}),
                },
            )
        )
    )
    annotations = {
        **draw(st.dictionaries(st.sampled_from(["a", "x.y/z~w"]), text, max_size=2)),
        **draw(asking_annotations((*others, *sidecars))),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "annotations": annotations},
        "spec": spec,
    }


amounts = st.one_of(
    st.integers(0, 100).map(str),
    st.sampled_from(["1k", "3000m", "1500m", "16Gi", "1e3", "1e40", "", "-1", "x", str(2**63)]),
    text,
)


def hostile_containers() -> st.SearchStrategy[Raw]:
    """Containers with anything in every field that is read."""
    names = st.one_of(st.sampled_from(NAMES), text)
    resources = st.dictionaries(st.one_of(st.sampled_from(RESOURCES), text), amounts, max_size=3)
    variable = st.one_of(
        st.sampled_from(["NVIDIA_VISIBLE_DEVICES", "CUDA_MPS_X", "CUDA_VISIBLE_DEVICES"]), text
    )
    return st.fixed_dictionaries(
        {"name": names},
        optional={
            "resources": st.fixed_dictionaries(
                {},
                optional={
                    "limits": resources,
                    "requests": resources,
                    "claims": st.lists(
                        st.fixed_dictionaries({"name": st.sampled_from(CLAIMS) | text}), max_size=2
                    ),
                },
            ),
            "env": st.lists(
                st.fixed_dictionaries(
                    {"name": variable},
                    optional={"value": text, "valueFrom": st.dictionaries(text, text, max_size=1)},
                ),
                max_size=3,
            ),
            "restartPolicy": st.one_of(st.just("Always"), text),
            "securityContext": st.fixed_dictionaries({}, optional={"privileged": st.booleans()}),
        },
    )


OUR_KEYS: Final = (
    *keys.USER_KEYS,
    *keys.SYSTEM_KEYS,
    keys.CONTAINER_PREFIX + "main",
    keys.CONTAINER_PREFIX + "side",
    keys.CONTAINER_PREFIX,
    keys.PREFIX,
    "gpu-",
)


def hostile_annotations() -> st.SearchStrategy[dict[str, str]]:
    """Keys of ours and others with good, bad and arbitrary values."""
    values = st.one_of(fractions, memories, st.sampled_from(["!T4", "spread", "GPU-1"]), text)
    return st.dictionaries(
        st.one_of(
            st.sampled_from(OUR_KEYS),
            text.map("gpu-{}".format),
            text.map(f"{keys.PREFIX}{{}}".format),
        ),
        values,
        max_size=6,
    )


def hostile_pods() -> st.SearchStrategy[Raw]:
    """Everything that is a pod on the wire, and nothing of it to be trusted."""
    containers = st.lists(hostile_containers(), max_size=3)
    return st.fixed_dictionaries(
        {
            "metadata": st.fixed_dictionaries(
                {},
                optional={
                    "annotations": hostile_annotations(),
                    "labels": st.dictionaries(text, text, max_size=2),
                },
            ),
            "spec": st.fixed_dictionaries(
                {"containers": containers},
                optional={
                    "initContainers": containers,
                    "ephemeralContainers": containers,
                    "schedulerName": st.one_of(st.just("kai-scheduler"), text),
                    "nodeName": text,
                    "runtimeClassName": text,
                    "nodeSelector": st.dictionaries(text, text, max_size=2),
                    "tolerations": st.lists(
                        st.fixed_dictionaries({}, optional={"key": text, "operator": text}),
                        max_size=2,
                    ),
                    "resourceClaims": st.lists(
                        st.fixed_dictionaries(
                            {"name": st.one_of(st.sampled_from(CLAIMS), text)},
                            optional={
                                "resourceClaimName": text,
                                "resourceClaimTemplateName": st.sampled_from(TEMPLATES) | text,
                            },
                        ),
                        max_size=2,
                    ),
                    "volumes": st.lists(
                        st.fixed_dictionaries(
                            {"name": text},
                            optional={"hostPath": st.fixed_dictionaries({"path": text})},
                        ),
                        max_size=2,
                    ),
                },
            ),
        }
    )


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Any request that an annotation can hold."""
    milli = st.integers(1, 1000)
    made = []
    for name in draw(st.lists(text, min_size=1, max_size=4, unique=True)):
        cards = draw(st.integers(1, 16))
        if draw(st.booleans()):
            made.append(Slice(name, cards, draw(milli), None, draw(milli)))
        else:
            memory_mib = draw(st.integers(1, 1 << 20))
            made.append(Slice(name, cards, draw(st.none() | milli), memory_mib, None))
    names = st.lists(text, max_size=3).map(tuple)
    return Request(
        tuple(made),
        draw(names),
        draw(names),
        draw(names),
        draw(st.sampled_from(["binpack", "spread", "topology"])),
        draw(st.sampled_from(["required", "preferred", "none"])),
    )


_ENDS: Final = {
    "volcano.sh/": ("vgpu-number", "vgpu-memory", "vgpu-cores", "gpu-number", "gpu-memory"),
    "volcano.sh/gpu-": ("mem.128Mi", "core.percentage"),
    "koordinator.sh/gpu": ("", ".shared", "-core", "-memory", "-memory-ratio"),
    "tencent.com/vcuda-": ("core", "memory"),
    "tke.cloud.tencent.com/qgpu-": ("core", "core-greedy", "memory"),
    "elasticgpu.io/gpu-": ("core", "memory"),
    "aliyun.com/gpu": ("", "-mem", "-core.percentage"),
    "bitfusion.io/gpu": ("", "-amount", "-percent", "-memory"),
    "gpu.intel.com/": ("i915", "i915_monitoring"),
    "deviceclass.resource.kubernetes.io/": ("mig-1g.10gb.nvidia.com", "vfio.gpu.nvidia.com"),
}
STACK_RESOURCES: Final = (
    *RESOURCES,
    *(start + end for start, ends in _ENDS.items() for end in ends),
    *(name for vendor in VENDORS for name in hami_devices.names(vendor)),
)
"""The resources of every stack."""

_TOLD_APART: Final = (
    "nvidia.com/gpu",
    "nvidia.com/gpu.shared",
    "virtaitech.com/gpu",
    "aliyun.com/gpu-mem",
    "volcano.sh/gpu-mem.128Mi",
)
"""Those whose charge depends on more of the pod, so half of the containers ask for them."""

_TOLD: Final = st.sampled_from(
    ["1", "2", "8", "0", "x", "", "0" * 40 + "2", "9" * 40, "NVIDIA-A30", "NVIDIA-A30-MIG-1g.6gb"]
)


@st.composite
def stack_containers(draw: st.DrawFn, name: str) -> Raw:
    """A container written by hand for some stacks at once."""
    counts = st.one_of(st.integers(0, 300).map(str), amounts)
    names = st.sampled_from(STACK_RESOURCES) | st.sampled_from(_TOLD_APART)
    given = draw(st.dictionaries(names, counts, min_size=1, max_size=4))
    variable = st.sampled_from(sorted(CHARGED_BY))
    return {
        "name": name,
        "resources": {"limits": given, "requests": given},
        "env": draw(
            st.lists(st.fixed_dictionaries({"name": variable}, optional={"value": _TOLD}))
        ),
        **draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "envFrom": st.just([{"configMapRef": {"name": "c"}}]),
                    "restartPolicy": st.just("Always"),
                },
            )
        ),
    }


@st.composite
def stack_pods(draw: st.DrawFn) -> Raw:
    """Pods written by hand for some stacks at once, with all that a charge can depend on."""
    told = st.dictionaries(st.sampled_from(sorted(CHARGED_BY)), _TOLD, max_size=5)
    shares = st.fixed_dictionaries(
        {},
        optional={
            keys.FRACTION: fractions,
            keys.MEMORY: memories,
            keys.NUM_DEVICES: _TOLD,
            keys.CONTAINER_NAME: st.sampled_from(NAMES),
        },
    )
    return {
        "metadata": {"annotations": draw(shares), "labels": draw(told)},
        "spec": {
            "containers": [draw(stack_containers(name)) for name in draw(_SOME)],
            "initContainers": [draw(stack_containers(f"i-{name}")) for name in draw(_SOME)],
            "nodeSelector": draw(told),
            "schedulerName": draw(st.sampled_from(["kai-scheduler", "volcano", ""])),
        },
    }


_SOME: Final = st.sampled_from([("main",), (), ("main", "side")])

own_settings: Final = st.fixed_dictionaries(
    {},
    optional={
        one.name: st.sampled_from(one.allowed)
        if one.allowed
        else st.sampled_from(["A100-80GB", "NVIDIA-A30", "x"])
        for one in SETTINGS
    },
)
"""Values of the stacks' own settings."""
