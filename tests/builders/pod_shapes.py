"""Every shape of pod that the repository knows, as a real API server takes it at creation."""

import copy
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from gpu_fraction.domain import dra, keys
from gpu_fraction.domain.backends import STACKS
from tests.builders.pods import Raw, container, env, pod
from tests.support.reviews import RECORDED, recorded

EXAMPLES = Path(__file__).parents[2] / "examples"
ANNOTATIONS: list[dict[str, str] | None] = [
    None,
    {},
    *({key: "x"} for key in (*keys.USER_KEYS, *keys.SYSTEM_KEYS)),
    {"gpu-fracton": "0.5"},
    {"gpu-fraction.dev": "x"},
    {keys.CONTAINER_PREFIX + "main": "0.5"},
    {"gpu-operator.example.com/driver": "x"},
    {"example.com/gpu-fraction": "x"},
    {"gpu": "x", "GPU-fraction": "x", "nvidia.com/gpu": "1"},
]
OF_STACKS = (name for stack in STACKS.values() for name in stack.resources)
RESOURCES = [
    *dict.fromkeys(name if name[-1].isalnum() else f"{name}1" for name in OF_STACKS),
    "gpu-fraction.dev/core",
    "nvidia.com/gpu.shared",
    "nvidia.com/gpumem-percentage",
    "nvidia.com/hostdev",
    "amd.com/nic",
    "example.com/gpu",
    "example.com/hca",
    *dra.EXTENDED_RESOURCES,
    "deviceclass.resource.kubernetes.io/nic.example.com",
    "cpu",
]
TEMPLATES = ["nic", "gpu-fraction", "gpu-fraction-quarter", f"gpu-fraction-250c-250m-{'0' * 32}"]
VARIABLES = ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_VISIBLE_DEVICES"]


def variants() -> Iterator[Raw]:
    """Every annotation, resource and variable in every kind of container."""
    yield from (pod(annotations) for annotations in ANNOTATIONS)
    parts: list[Raw] = [{"resources": {name: "1"}} for name in RESOURCES]
    parts += [{"env": env((name, value))} for name in VARIABLES for value in ("void", None)]
    parts += [{"resources": {}}, {"env": []}, {"resources": {"cpu": "1"}, "env": env(("A", "b"))}]
    for part in parts:
        yield pod(None, container(**part))
        yield pod({}, container(), container("last", **part))
        yield pod(None, init=[container("setup", **part)])
        yield pod(
            None, init=[container("setup"), container("sidecar", **part, restartPolicy="Always")]
        )
    chosen = env(("NVIDIA_VISIBLE_DEVICES", "all"))
    privileged = container("plugin", env=chosen, securityContext={"privileged": True})
    yield pod(None, privileged)
    yield pod(None, container(), init=[privileged])
    yield pod(None, privileged, container("other", env=chosen))
    yield pod(None, container(env=chosen, securityContext={"privileged": False}))
    for folder in ("device-plugins", "device-plugins/", "pods"):
        mounted = {"name": "kubelet", "hostPath": {"path": f"/var/lib/kubelet/{folder}"}}
        yield pod(None, container(env=chosen), volumes=[{"name": "e", "emptyDir": {}}, mounted])
        asking = container(resources={"nvidia.com/gpu": "1"}, env=chosen)
        yield pod(None, asking, volumes=[mounted])
    for name in TEMPLATES:
        yield pod(None, resourceClaims=[{"name": "a", "resourceClaimTemplateName": name}])
    yield pod(None, resourceClaims=[{"name": "gpu-fraction-0", "resourceClaimName": "mine"}])
    yield pod({"gpu-fraction": "1"}, privileged)
    yield pod({"gpu-fraction": "1"}, container(resources={"nvidia.com/gpu": "1"}))
    yield pod({f"example.com/{i}": "x" * 8 for i in range(5000)})
    yield pod(None, *(container(f"c{i}", {"cpu": "1m"}) for i in range(300)))


def templates(value: object) -> Iterator[Raw]:
    """Pods and pod templates within a document."""
    if not isinstance(value, dict):
        return
    if value.get("kind") == "Pod" or "containers" in value.get("spec", {}):
        yield value
    for inner in value.values():
        yield from templates(inner)


def shapes() -> list[Raw]:
    """Pods of the examples, of the recorded reviews, and the variants; without names."""
    found: list[Raw] = []
    for file in sorted(EXAMPLES.glob("*.yaml")):
        for document in YAML(typ="safe").load_all(file):
            found += templates(document)
    for name in RECORDED:
        found += templates(recorded(name)["request"].get("object"))
    made = []
    for raw in (*found, *variants()):
        new: Raw = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "p-"}}
        if "annotations" in raw["metadata"]:
            new["metadata"]["annotations"] = raw["metadata"]["annotations"]
        new["spec"] = copy.deepcopy(raw["spec"])
        # What the server fills in, and may not be given at creation.
        for field in ("ephemeralContainers", "nodeName", "priority", "serviceAccountName"):
            new["spec"].pop(field, None)
        new["spec"].pop("priorityClassName", None)
        made.append(new)
    return made
