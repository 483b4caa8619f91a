"""``gpu-fraction webhook``: its settings, and what keeps it from starting."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gpu_fraction.cli.webhook import Settings
from gpu_fraction.domain.backends import SETTINGS
from gpu_fraction.settings.declaration import options_of
from tests.support.tls import Tls
from tests.unit.cli.conftest import Command

EVERY_FLAG = {
    "host": "::1",
    "port": "0",
    "tls_cert": "/some where/tls.crt",
    "tls_key": 'C:\\keys\\"a"',
    "system_users": "a,system:serviceaccount:n:b",
    "drain_least": "0",
    "drain_most": "0.5",
    "event_loop": "asyncio",
    "log_level": "warning",
    "backend": "hami",
    "namespace_backends": "nvidia,native",
    "allow_pod_backend": "true",
    "gpu_memory_mib": "80Gi",
    "gpu_memory_by_model": "A100-80GB=80Gi,RTX 6000=48Gi",
    "runtime_class": "nvidia",
    "framework_env": "off",
    "env": "NVIDIA_DRIVER_CAPABILITIES=compute,utility,B=x=y,EMPTY=",
    "default_placement": "spread",
    "default_isolation": "required",
    "max_cards": "8",
    "max_memory": "200Gi",
    "policy_privileged": "allow",
    "policy_host_devices": "allow",
    "policy_node_name": "allow",
    "policy_other_scheduler": "allow",
    "left_to_schedulers": "kai-scheduler,volcano",
    "kubeconfig": "/some where/config",
    "kube_context": "prod",
    "require_quota": "cores,memory",
    "require_quota_priority_classes": "gold,silver",
    "quota_ttl": "120",
    "hand_written_claims": "charge",
    "cert_dir": "/tls",
    "cert_namespace": "gpus",
    "cert_service": "hook",
    "cert_mutating": "a,b",
    "cert_validating": "a",
    "cert_extra_names": "hook.example,10.0.0.1",
    "cert_ca_life": "86400",
    "cert_leaf_life": "3600",
    "cert_settle": "5",
    "cert_retire": "60",
    "replica_name": "hook-0",
    "replica_uid": "0f3b",
}


def sources(text: str) -> dict[str, str]:
    """Where each printed setting came from."""
    return {
        line.partition(":")[0]: line.rpartition("# ")[2]
        for line in text.splitlines()
        if line.strip()
    }


def test_print_config_names_every_setting_and_its_source(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flag, environment, file or default."""
    config = tmp_path / "config.yaml"
    config.write_text("port: 1\nhost: 127.0.0.1\nbackend: hami\n")
    monkeypatch.setenv("GPU_FRACTION_PORT", "2")
    monkeypatch.setenv("GPU_FRACTION_BACKEND", "nvidia")
    result = command("webhook", "--print-config", "--config", config, "--backend", "native")
    assert (result.code, result.err) == (0, "")
    assert YAML(typ="safe", pure=True).load(result.out)["port"] in {"2", 2}
    found = sources(result.out)
    assert set(found) == {option.name for option in options_of(Settings)}
    assert {k: v for k, v in found.items() if v != "default"} == {
        "backend": "flag",
        "port": "environment",
        "host": "file",
    }


@pytest.mark.parametrize("flags", [{}, EVERY_FLAG])
def test_print_config_can_be_given_back(
    command: Command, tmp_path: Path, flags: dict[str, str]
) -> None:
    """As a file, it says the same again; defaults and all."""
    ours = {option.name for option in options_of(Settings)} - {one.name for one in SETTINGS}
    assert not flags or set(flags) == ours
    arguments = [
        part for name, value in flags.items() for part in ("--" + name.replace("_", "-"), value)
    ]
    first = command("webhook", "--print-config", *arguments)
    assert (first.code, first.err) == (0, "")
    config = tmp_path / "config.yaml"
    config.write_text(first.out)
    second = command("webhook", "--print-config", "--config", config)
    assert (second.code, second.err) == (0, "")

    def values(text: str) -> list[str]:
        return [line.rpartition("  # ")[0] for line in text.splitlines()]

    assert values(second.out) == values(first.out)


def test_it_does_not_start_without_a_certificate(command: Command, tls: Tls) -> None:
    """And says which flags are missing, or what is wrong with the files."""
    missing = command("webhook")
    assert (missing.code, missing.err) == (
        2,
        (
            "gpu-fraction: --tls-cert and --tls-key are needed outside a cluster; inside one, or "
            "with --kubeconfig, omit both to use self-managed certificates\n"
        ),
    )
    for cert, key in ((tls.cert, tls.cert), (tls.key, tls.key), ("/none", tls.key)):
        result = command("webhook", "--tls-cert", cert, "--tls-key", key)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"gpu-fraction: --tls-cert {cert} with --tls-key {key}: ")


def test_it_does_not_start_with_settings_that_cannot_be_used(command: Command) -> None:
    """All of them at once."""
    result = command("webhook", "--port", "65536", "--log-level", "loud", "--drain-least", "-1")
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        'gpu-fraction: flag --port: "65536" is invalid; allowed: a whole number from 0 to 65535',
        'gpu-fraction: flag --drain-least: "-1" is invalid; allowed: seconds from 0 to 600',
        (
            'gpu-fraction: flag --log-level: "loud" is invalid; '
            "allowed: debug, info, warning, error"
        ),
    ]


@pytest.mark.parametrize("arguments", [("--require-quota",), ("--require-quota", "any")])
def test_require_quota_needs_no_value(command: Command, arguments: tuple[str, ...]) -> None:
    """Without one it means any use of GPUs."""
    result = command("webhook", "--print-config", *arguments)
    assert result.code == 0
    assert YAML(typ="safe", pure=True).load(result.out)["require_quota"] == "any"
