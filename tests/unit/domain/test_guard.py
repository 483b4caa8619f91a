"""What a pod may not do, because it would reach GPUs that it was not given."""

import pytest

from gpu_fraction.domain.guard import Policy, check
from tests.builders.pods import Raw, container, env, paths, pod, typed

STRICT = Policy()
OPEN = Policy("allow", "allow", "allow", "allow")
NATIVE = {"gpu-fraction.dev/slot": "1"}


def problems(raw: Raw, policy: Policy = STRICT, *, gpu: bool = True) -> list[str]:
    """The fields that are refused."""
    return paths(check(typed(raw), policy, gpu=gpu))


def test_an_ordinary_pod_has_no_problem() -> None:
    """With or without a GPU."""
    raw = pod(
        None,
        container("main", NATIVE, env=env(("PATH", "/bin"), ("MY_CUDA_MPS_", "x"))),
        volumes=[{"name": "data", "hostPath": {"path": "/data"}}, {"name": "e", "emptyDir": {}}],
        schedulerName="any",
    )
    assert problems(raw) == []
    assert problems(raw, gpu=False) == []


@pytest.mark.parametrize("value", ["all", "0", "0,1", "GPU-1", "", "Void", "none,0", None])
@pytest.mark.parametrize("gpu", [True, False])
def test_no_pod_chooses_its_own_cards(value: str | None, gpu: bool) -> None:
    """Also a pod without a GPU: NVIDIA's runtime would give it what it names."""
    raw = pod(None, container("main"), container("b", env=env(("NVIDIA_VISIBLE_DEVICES", value))))
    assert problems(raw, OPEN, gpu=gpu) == ["spec.containers[1].env[0]"]


@pytest.mark.parametrize("value", ["void", "none"])
def test_no_cards_may_be_chosen_by_who_has_none(value: str) -> None:
    """Public images set it so; in a container with a GPU it would undo the assignment."""
    plain = container("main", env=env(("NVIDIA_VISIBLE_DEVICES", value)))
    assert problems(pod(None, plain), gpu=False) == []
    assert problems(pod(None, plain, container("gpu", NATIVE))) == []
    holder = container("main", NATIVE, env=env(("NVIDIA_VISIBLE_DEVICES", value)))
    assert problems(pod(None, holder)) == ["spec.containers[0].env[0]"]


@pytest.mark.parametrize(
    "name",
    [
        "CUDA_VISIBLE_DEVICES",
        "CUDA_MPS_PIPE_DIRECTORY",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
        "CUDA_MPS_ANYTHING_NEW",
    ],
)
def test_variables_that_step_out_of_a_share(name: str) -> None:
    """Refused in every container of a GPU pod, of no concern in other pods."""
    raw = pod(
        None,
        container("main", NATIVE, env=env(("A", "b"), (name, "x"))),
        container("b", env=env((name, None))),
        init=[container("c", env=env((name, "")))],
        ephemeral=[container("d", env=env((name, "0")))],
    )
    assert problems(raw, OPEN) == [
        "spec.containers[0].env[1]",
        "spec.containers[1].env[0]",
        "spec.initContainers[0].env[0]",
        "spec.ephemeralContainers[0].env[0]",
    ]
    assert problems(raw, OPEN, gpu=False) == []


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
def test_privileged(kind: str) -> None:
    """A privileged container sees every device of the node, whichever kind it is."""
    raw = pod()
    raw["spec"][kind] = [container("x", securityContext={"privileged": True})]
    assert problems(raw) == [f"spec.{kind}[0].securityContext.privileged"]
    assert problems(raw, Policy(privileged="allow")) == []
    assert problems(raw, gpu=False) == []


@pytest.mark.parametrize("context", [None, {}, {"privileged": False}, {"privileged": None}])
def test_not_privileged(context: dict[str, object] | None) -> None:
    """Missing, empty, null and false alike."""
    assert problems(pod(None, container("x", securityContext=context))) == []


@pytest.mark.parametrize(
    "path",
    [
        "/dev",
        "/dev/",
        "/dev/nvidia0",
        "//dev",
        "/./dev",
        "/.//./dev/dri",
        "dev",
        "/",
        "//",
        "/.",
        "",
        ".",
        "/data/..",
        "/data/../dev",
        "/data/../data",
        "../dev",
        "/..",
    ],
)
def test_the_nodes_devices(path: str) -> None:
    """However the path is written; what climbs may end anywhere."""
    raw = pod(volumes=[{"name": "a", "emptyDir": {}}, {"name": "h", "hostPath": {"path": path}}])
    assert problems(raw) == ["spec.volumes[1].hostPath.path"]
    assert problems(raw, Policy(host_devices="allow")) == []
    assert problems(raw, gpu=False) == []


@pytest.mark.parametrize(
    "path", ["/data", "/devices", "/data/dev", "/mnt/.dev", "/mnt/...", "/var/lib/a..b"]
)
def test_other_folders_of_the_node(path: str) -> None:
    """Names that only look like it."""
    assert problems(pod(volumes=[{"name": "h", "hostPath": {"path": path}}])) == []


def test_node_name() -> None:
    """A preset node goes past the scheduler that chooses the card."""
    raw = pod(nodeName="node-a")
    assert problems(raw) == ["spec.nodeName"]
    assert problems(raw, Policy(node_name="allow")) == []
    assert problems(raw, gpu=False) == []
    assert problems(pod(nodeName="")) == []


def test_messages() -> None:
    """Each says what was given, why it is refused, and what to do."""
    raw = pod(
        None,
        container(
            "main",
            env=env(("NVIDIA_VISIBLE_DEVICES", "all"), ("CUDA_MPS_X", "1")),
            securityContext={"privileged": True},
        ),
        volumes=[{"name": "h", "hostPath": {"path": "/dev"}}],
        nodeName="n",
    )
    assert [str(problem) for problem in check(typed(raw), STRICT, gpu=True)] == [
        (
            "spec.containers[0].env[0]: NVIDIA_VISIBLE_DEVICES may not be set: it would give the "
            "container GPUs that it was not assigned; remove it, gpu-fraction sets it"
        ),
        (
            "spec.containers[0].env[1]: CUDA_MPS_X may not be set in a pod that uses GPUs: "
            "gpu-fraction sets it; remove it"
        ),
        (
            "spec.containers[0].securityContext.privileged: true is refused in a pod that uses "
            "GPUs: the container would see every GPU of the node; allowed: false (cluster setting "
            "policy_privileged)"
        ),
        (
            'spec.volumes[0].hostPath.path: "/dev" is refused in a pod that uses GPUs: it '
            "contains the node's device files; mount a folder outside /dev "
            "(cluster setting policy_host_devices)"
        ),
        (
            'spec.nodeName: "n" is refused in a pod that uses GPUs: it bypasses the GPU '
            "scheduler; use nodeSelector or affinity (cluster setting policy_node_name)"
        ),
    ]


# The vendors' own pods.

PRIVILEGED = {"privileged": True}
CHOSEN = env(("NVIDIA_VISIBLE_DEVICES", "all"))
PLUGINS = [{"name": "p", "hostPath": {"path": "/var/lib/kubelet/device-plugins"}}]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            pod(None, container("ctr", env=CHOSEN, securityContext=PRIVILEGED)),
            id="nvidia-device-plugin-of-the-gpu-operator",
        ),
        pytest.param(
            pod(
                None,
                container("main"),
                init=[container("toolkit-validation", env=CHOSEN, securityContext=PRIVILEGED)],
            ),
            id="validator-of-the-gpu-operator",
        ),
        pytest.param(
            pod(None, container("ctr", env=CHOSEN), volumes=PLUGINS),
            id="nvidia-device-plugin-of-its-chart",
        ),
        pytest.param(
            pod(None, container("monitor", env=CHOSEN, securityContext=PRIVILEGED), hostPID=True),
            id="hami-monitor",
        ),
    ],
)
def test_a_vendors_own_pod_starts(raw: Raw) -> None:
    """It is privileged, or registers device plugins: it reaches every GPU by that alone."""
    assert problems(raw, gpu=False) == []


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(pod(None, container("a", env=CHOSEN)), id="an-ordinary-pod"),
        pytest.param(
            pod(None, container("a", env=CHOSEN, securityContext={"privileged": False})),
            id="not-privileged",
        ),
        pytest.param(
            pod(None, container("a", env=CHOSEN), container("b", securityContext=PRIVILEGED)),
            id="another-container-is-privileged",
        ),
        pytest.param(
            pod(
                None,
                container("a", {"nvidia.com/gpu": "1"}, env=CHOSEN, securityContext=PRIVILEGED),
            ),
            id="a-pod-that-asks-for-a-gpu",
        ),
        pytest.param(
            pod(
                None,
                container("a", env=CHOSEN, securityContext=PRIVILEGED),
                container("b", {"nvidia.com/gpu": "1"}),
            ),
            id="beside-a-container-that-asks-for-a-gpu",
        ),
        pytest.param(
            pod({"gpu-fraction": "1"}, container("a", env=CHOSEN, securityContext=PRIVILEGED)),
            id="an-annotation-of-ours",
        ),
        *(
            pytest.param(
                pod(
                    None,
                    container("a", env=CHOSEN),
                    volumes=[{"name": "p", "hostPath": {"path": path}}],
                ),
                id=f"mounts-{path}",
            )
            for path in ("/var/lib/kubelet/pods", "/data/var/lib/kubelet/device-plugins")
        ),
    ],
)
def test_a_tenant_does_not_pass_for_a_vendor(raw: Raw) -> None:
    """What the pod could not do without the variable, it cannot do with it."""
    assert problems(raw, gpu=False) == ["spec.containers[0].env[0]"]


def test_a_stacks_components_set_variables() -> None:
    """Those that the pod's stack says are its own pass, the rest are refused."""
    names = ("NVIDIA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_VISIBLE_DEVICES")
    raw = pod(None, container("main", NATIVE, env=env(*((name, "x") for name in names))))
    for index, name in enumerate(names):
        told = paths(check(typed(raw), OPEN, gpu=True, sets=lambda _pod, _at, v: v.name == name))  # noqa: B023
        assert told == [f"spec.containers[0].env[{i}]" for i in range(3) if i != index]
