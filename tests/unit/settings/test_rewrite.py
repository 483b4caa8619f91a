"""The settings that decide how a pod is rewritten."""

from dataclasses import replace

import pytest

from gpu_fraction.domain.admission import Rules
from gpu_fraction.domain.backends import BackendConfig
from gpu_fraction.domain.guard import Policy
from gpu_fraction.domain.request import Bounds
from gpu_fraction.domain.sizes import CardSizes
from gpu_fraction.settings.declaration import options_of
from gpu_fraction.settings.option import SettingsError, load
from gpu_fraction.settings.rewrite import RewriteSettings
from tests.support.reviews import rewriting


def test_defaults_are_strict() -> None:
    """No namespace chooses, nothing is allowed, no size is known."""
    made = rewriting()
    assert made.rules == Rules(Bounds(), Policy(), frozenset({"kai-scheduler"}))
    assert list(made.backends) == ["native"]
    assert made.backend_for(None).name == "native"


def test_every_setting_arrives() -> None:
    """Where the domain looks for it."""
    made = rewriting(
        backend="hami",
        namespace_backends="nvidia",
        gpu_memory_mib="80Gi",
        gpu_memory_by_model="T4=15360,RTX 6000 = 48Gi",
        runtime_class="nvidia",
        framework_env="off",
        env="NVIDIA_DRIVER_CAPABILITIES=compute,utility,B=x=y,EMPTY=",
        default_placement="topology",
        default_isolation="none",
        max_cards="4",
        max_memory="100Gi",
        policy_privileged="allow",
        policy_host_devices="allow",
        policy_node_name="allow",
        policy_other_scheduler="allow",
        left_to_schedulers="",
    )
    assert made.rules == Rules(
        Bounds(4, 102400, "topology", "none"),
        Policy("allow", "allow", "allow", "allow"),
        frozenset(),
    )
    config = BackendConfig(
        CardSizes(81920, {"T4": 15360, "RTX 6000": 49152}),
        "nvidia",
        {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility", "B": "x=y", "EMPTY": ""},
        framework_env="off",
    )
    assert {name: replace(backend.config, own={}) for name, backend in made.backends.items()} == {
        "hami": config,
        "nvidia": config,
    }


@pytest.mark.parametrize(
    ("flags", "scheduler", "owner"),
    [
        (
            {"backend": "hami", "left_to_schedulers": "volcano,hami-scheduler"},
            "hami-scheduler",
            "--backend hami",
        ),
        (
            {"left_to_schedulers": "gpu-fraction-scheduler"},
            "gpu-fraction-scheduler",
            "--backend native",
        ),
        (
            {"namespace_backends": "nvidia,hami", "left_to_schedulers": "hami-scheduler"},
            "hami-scheduler",
            "--namespace-backends hami",
        ),
    ],
)
def test_a_configured_backends_pods_cannot_be_left_alone(
    flags: dict[str, str], scheduler: str, owner: str
) -> None:
    """They would be rewritten, and then refused for what was written."""
    with pytest.raises(SettingsError) as refused:
        rewriting(**flags)
    (told,) = refused.value.errors
    assert told == (
        f"--left-to-schedulers contains {scheduler}, the scheduler of {owner}; "
        "remove one of the two"
    )


def test_the_default_scheduler_cannot_be_left_alone() -> None:
    """Every pod has it that names no scheduler, so none would be rewritten."""
    with pytest.raises(SettingsError) as refused:
        rewriting(backend="nvidia", left_to_schedulers="default-scheduler")
    (told,) = refused.value.errors
    assert told.startswith("--left-to-schedulers contains default-scheduler")
    assert told.endswith("--backend nvidia has to change; remove it")


def test_schedulers_of_backends_that_are_not_configured_may_be_left_alone() -> None:
    """Their pods are another system's."""
    made = rewriting(backend="nvidia", left_to_schedulers="hami-scheduler,gpu-fraction-scheduler")
    assert made.rules.left_to == {"hami-scheduler", "gpu-fraction-scheduler"}


@pytest.mark.parametrize(
    ("label", "backend"),
    [(None, "hami"), ("nvidia", "nvidia"), ("hami", "hami"), ("native", "hami"), ("", "hami")],
)
def test_a_namespaces_choice(label: str | None, backend: str) -> None:
    """Counts where it is allowed; the default needs no allowance."""
    assert (
        rewriting(backend="hami", namespace_backends="nvidia").backend_for(label).name == backend
    )


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("backend", "kia"),
        ("namespace_backends", "hami,kia"),
        ("gpu_memory_mib", "0"),
        ("gpu_memory_mib", "80GB"),
        ("gpu_memory_by_model", "T4"),
        ("gpu_memory_by_model", "T4=lots"),
        ("gpu_memory_by_model", "=15360"),
        ("gpu_memory_by_model", "A=1,B"),
        ("runtime_class", ""),
        ("env", "A"),
        ("env", "=x"),
        ("env", "B,A=x"),
        ("env", "NVIDIA_VISIBLE_DEVICES=all"),
        ("env", "A=b,CUDA_VISIBLE_DEVICES=0"),
        ("env", "CUDA_MPS_PIPE_DIRECTORY=/x"),
        ("default_placement", "any"),
        ("default_isolation", "strict"),
        ("max_cards", "0"),
        ("max_cards", "1025"),
        ("max_memory", "0"),
        ("policy_privileged", "yes"),
        ("policy_node_name", "true"),
    ],
)
def test_what_is_refused(name: str, given: str) -> None:
    """With the setting's name and what is allowed."""
    with pytest.raises(SettingsError) as refused:
        rewriting(**{name: given})
    (fault,) = refused.value.errors
    assert fault.startswith(f"flag --{name.replace('_', '-')}: ")
    assert "allowed: " in fault


def test_a_mapping_in_a_file() -> None:
    """As YAML writes it, commas in values and all."""
    file = {
        "env": {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility", "N": 1},
        "gpu_memory_by_model": {"T4": 15360, "A100-80GB": "80Gi"},
        "left_to_schedulers": ["a", "b"],
    }
    options = options_of(RewriteSettings)
    values = load(options, flags={}, environ={}, file=file)
    assert values["env"].value == {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility", "N": "1"}
    assert values["gpu_memory_by_model"].value == {"T4": 15360, "A100-80GB": 81920}
    assert values["left_to_schedulers"].value == ("a", "b")
