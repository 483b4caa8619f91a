"""The generated modules are what the vendored protos generate."""

import subprocess
import sys
from pathlib import Path

from gpu_fraction.kubelet_api import (
    deviceplugin_v1beta1_pb2,
    dra_health_v1_pb2,
    dra_health_v1alpha1_pb2,
    dra_v1_pb2,
    pluginregistration_v1_pb2,
    podresources_v1_pb2,
)

ROOT = Path(__file__).resolve().parents[2]


def test_generated_modules_are_current() -> None:
    """Generating again gives the same bytes."""
    script = ROOT / "scripts" / "generate_protos.py"
    run = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert (run.stdout, run.returncode) == ("", 0), run.stderr


def test_all_interfaces_load_in_one_process() -> None:
    """Their messages and services carry the kubelet's own names."""
    answer = deviceplugin_v1beta1_pb2.ContainerAllocateResponse
    assert answer.DESCRIPTOR.full_name == "v1beta1.ContainerAllocateResponse"
    assert answer.DESCRIPTOR.fields_by_name["cdi_devices"].number == 5
    lister = podresources_v1_pb2.DESCRIPTOR.services_by_name["PodResourcesLister"]
    assert lister.full_name == "v1.PodResourcesLister"
    assert {method.name for method in lister.methods} == {"List", "GetAllocatableResources", "Get"}
    services = {
        service.full_name
        for module in (
            dra_v1_pb2,
            pluginregistration_v1_pb2,
            dra_health_v1_pb2,
            dra_health_v1alpha1_pb2,
        )
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    assert services == {
        "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin",
        "pluginregistration.Registration",
        "v1.DRAResourceHealth",
        "v1alpha1.DRAResourceHealth",
    }
