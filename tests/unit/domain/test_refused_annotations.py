"""What no annotation may say, and how its author is told."""

import pytest

from tests.unit.domain.annotated_pod import refusals

SHARE = "a share of one GPU from 0.001 to 1 (0.25 or 25%)"
FRACTION = f"{SHARE}, or a whole number of GPUs (1, 2, 4)"
MEMORY = "an amount above 0 with a unit (8Gi, 8000Mi) or a plain number of MiB"
KNOWN = (
    "known: gpu-fraction, gpu-memory, gpu-cores, gpu-fraction-num-devices, "
    "gpu-fraction-container-name, gpu-fraction.dev/gpu-model, gpu-fraction.dev/gpu-uuid, "
    "gpu-fraction.dev/placement, gpu-fraction.dev/isolation, gpu-fraction.dev/framework-env, "
    "gpu-fraction.dev/backend, "
    "gpu-fraction.dev/container.<name>"
)


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
            'metadata.annotations[gpu-fraction]: "0.0001" is less than 0.001 of a GPU; '
            f"allowed: {FRACTION}",
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
            'metadata.annotations[gpu-memory]: "2Ti" is 2097152 MiB, more than any GPU has; '
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
            "metadata.annotations[gpu-cores]: has no effect without gpu-fraction or "
            "gpu-memory; add one of them",
            id="cores-alone",
        ),
        pytest.param(
            {"gpu-fraction-num-devices": "2"},
            "metadata.annotations[gpu-fraction-num-devices]: has no effect without "
            "gpu-fraction or gpu-memory; add one of them",
            id="count-alone",
        ),
        pytest.param(
            {"gpu-fraction-container-name": "main"},
            "metadata.annotations[gpu-fraction-container-name]: has no effect without "
            "gpu-fraction or gpu-memory; add one of them",
            id="container-alone",
        ),
        pytest.param(
            {"gpu-fraction.dev/container.side": "0.5", "gpu-cores": "0.5"},
            "metadata.annotations[gpu-cores]: has no effect without gpu-fraction or "
            "gpu-memory; add one of them",
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
            'metadata.annotations[gpu-fraction-num-devices]: conflicts with gpu-fraction "2", '
            "which already counts GPUs; remove one of the two, or use a share of at most 1",
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
            "restartPolicy: Always) can use a GPU",
            id="init-container",
        ),
        pytest.param(
            {"gpu-fraction.dev/container.fetch": "0.5"},
            'metadata.annotations[gpu-fraction.dev/container.fetch]: container "fetch" is an '
            "initContainer; only regular containers and sidecars (init containers with "
            "restartPolicy: Always) can use a GPU",
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
            "gpu-fraction or gpu-memory of the pod; remove one of the two",
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
            "models (A100,H100) or excluded models (!T4,!P4)",
            id="no-model",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-model": "A100,"},
            'metadata.annotations[gpu-fraction.dev/gpu-model]: "" is not a GPU model; allowed: '
            "models (A100,H100) or excluded models (!T4,!P4)",
            id="a-comma-too-many",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-model": "!"},
            'metadata.annotations[gpu-fraction.dev/gpu-model]: "" is not a GPU model; allowed: '
            "models (A100,H100) or excluded models (!T4,!P4)",
            id="avoid-nothing",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-model": "A100;H100"},
            'metadata.annotations[gpu-fraction.dev/gpu-model]: "A100;H100" is not a GPU model; '
            "allowed: models (A100,H100) or excluded models (!T4,!P4)",
            id="model",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/gpu-model": "A100,!T4"},
            'metadata.annotations[gpu-fraction.dev/gpu-model]: "A100,!T4" mixes allowed and '
            "excluded models; allowed: models (A100,H100) or excluded models (!T4,!P4), not both",
            id="take-and-avoid",
        ),
        pytest.param(
            {
                "gpu-fraction": "0.5",
                "gpu-fraction.dev/gpu-model": ",".join(f"M{i}" for i in range(65)),
            },
            "metadata.annotations[gpu-fraction.dev/gpu-model]: lists more than 64 items; "
            "allowed: at most 64",
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
            "metadata.annotations[gpu-fraction.dev/gpu-uuid]: lists 1 GPU(s), but a container "
            "requests 2; allowed: at least 2",
            id="fewer-cards-than-asked",
        ),
        pytest.param(
            {"gpu-fraction": "2", "gpu-fraction.dev/gpu-uuid": "GPU-1,GPU-1"},
            "metadata.annotations[gpu-fraction.dev/gpu-uuid]: lists 1 GPU(s), but a container "
            "requests 2; allowed: at least 2",
            id="one-card-twice",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/placement": "spraed"},
            'metadata.annotations[gpu-fraction.dev/placement]: "spraed" is not a known value; '
            'did you mean "spread"?; allowed: binpack, spread, topology',
            id="placement",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/framework-env": "false"},
            'metadata.annotations[gpu-fraction.dev/framework-env]: "false" is not a known value; '
            "allowed: off",
            id="framework-env",
        ),
        pytest.param(
            {"gpu-fraction.dev/framework-env": "off"},
            "metadata.annotations[gpu-fraction.dev/framework-env]: does not request a GPU by "
            "itself; add gpu-fraction or gpu-memory",
            id="framework-env-alone",
        ),
        pytest.param(
            {"gpu-fraction": "0.5", "gpu-fraction.dev/isolation": "yes"},
            'metadata.annotations[gpu-fraction.dev/isolation]: "yes" is not a known value; '
            "allowed: required, preferred, none",
            id="isolation",
        ),
        pytest.param(
            {"gpu-fraction.dev/placement": "spread"},
            "metadata.annotations[gpu-fraction.dev/placement]: does not request a GPU by itself; "
            "add gpu-fraction or gpu-memory",
            id="no-share-at-all",
        ),
    ],
)
def test_refusal(annotations: dict[str, str], expected: str) -> None:
    """One problem, one sentence: the field, what was given, what is allowed."""
    assert refusals(annotations) == [expected]
