"""status, quota, top and the kubectl plugin on a real API server, with the rights of real users.

The nodes are objects without a kubelet: what is shown is what the API server stores.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpu_fraction.domain.assignment import CardShare
from tests.builders.cards import card
from tests.builders.views import gpu_node, gpu_pod
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.quota import quota

ROOT = Path(__file__).parents[2]
NODE = "gpu-status"
MODEL = "NVIDIA A100-SXM4-80GB"
USER = "ann"


@dataclass(frozen=True)
class World:
    """A cluster with one GPU node, two namespaces and a user of the first."""

    plane: ControlPlane
    team: str
    other: str
    ann: Path
    programs: Path

    def kubectl(self, *words: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl with the plugin on its path, as the administrator or another user."""
        env = {
            **self.plane.kubectl.env,
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "KUBECONFIG": str(config or self.plane.kubectl.kubeconfig),
        }
        return subprocess.run(
            [self.plane.kubectl.binary, *words],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=env,
        )

    def status(self, *words: str, config: Path | None = None) -> dict[str, Any]:
        """What ``kubectl gpu-fraction status -o json`` prints."""
        done = self.kubectl("gpu-fraction", "status", "-o", "json", *words, config=config)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


def program(folder: Path, name: str, module: str) -> None:
    """What an installation makes of an entry point."""
    path = folder / name
    path.write_text(
        f"#!{sys.executable}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
    )
    path.chmod(0o755)


def view_role(namespace: str) -> list[Mapping[str, Any]]:
    """The right of the user to view one namespace, as administrators give it."""
    group = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "ann-views", "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": USER}],
        }
    ]


@pytest.fixture(scope="module")
def world(
    own_control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """The objects; the node is removed afterwards, because other tests count nodes."""
    plane, kubectl = own_control_plane, own_control_plane.kubectl
    kubectl("apply", "-f", str(ROOT / "deploy" / "crd" / "gpuquotas.yaml"))
    kubectl("apply", "-f", str(ROOT / "deploy" / "crd" / "view.yaml"))
    kubectl("wait", "--for=condition=Established", "crd/gpuquotas.gpu-fraction.dev")
    programs = tmp_path_factory.mktemp("programs")
    program(programs, "kubectl-gpu_fraction", "gpu_fraction.cli.main")
    program(programs, "kubectl_complete-gpu_fraction", "gpu_fraction.cli.completion")
    with plane.namespace() as team, plane.namespace() as other:
        node = gpu_node(
            NODE,
            card(0, uuid="GPU-a", model=MODEL, memory_mib=81920),
            card(1, uuid="GPU-b", model=MODEL, healthy=False, health_reason="XID 79"),
        )
        status = node.pop("status")
        kubectl.apply(node)
        ready = json.dumps({"status": status})
        kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", ready)
        for namespace, name, milli in ((team, "train", 500), (other, "serve", 250)):
            share = CardShare("GPU-a", milli, 81920 * milli // 1000)
            pod = gpu_pod(name, share, namespace=namespace, node=NODE, milli=milli)
            del pod["metadata"]["uid"], pod["metadata"]["creationTimestamp"]
            del pod["spec"]["serviceAccountName"]
            kubectl.apply(pod)
        kubectl.apply(
            quota("budget", team, hard={"cores": "1", "memory": "80Gi"}), *view_role(team)
        )
        yield World(plane, team, other, plane.user_kubeconfig(USER), programs)
        kubectl("delete", "node", NODE)


def test_an_administrator_sees_cards_and_who_holds_them(world: World) -> None:
    """From the inventory and the annotations as the API server stores them."""
    found = world.status()
    first, second = [one for one in found["items"] if one["node"] == NODE]
    assert first["coreMilli"] == {"total": 1000, "given": 750, "free": 250}
    assert {(one["namespace"], one["pod"]) for one in first["slices"]} == {
        (world.team, "train"),
        (world.other, "serve"),
    }
    assert (second["closed"], found["complete"], found["gaps"]) == ("XID 79", True, [])


@pytest.mark.parametrize(
    ("by", "form", "wanted"),
    [
        ("card", "wide", NODE),
        ("card", "name", "gpu/GPU-a"),
        ("node", "csv", NODE),
        ("model", "yaml", MODEL),
        ("namespace", "table", "test-"),
        ("pod", "table", "train"),
    ],
)
def test_tables_and_their_forms(world: World, by: str, form: str, wanted: str) -> None:
    """With the real server's objects in them."""
    done = world.kubectl("gpu-fraction", "status", "--by", by, "-A", "-o", form)
    assert done.returncode == 0, done.stderr
    assert wanted in done.stdout


def test_a_user_of_one_namespace_sees_own_pods_and_what_is_missing(world: World) -> None:
    """With the built-in role ``view`` there: no nodes, no pods of others, no claims of others."""
    found = world.status("--by=pod", "-n", world.team, config=world.ann)
    (item,) = found["items"]
    assert (item["pod"], item["slice"]["uuid"], item["slice"]["coreMilli"]) == (
        "train",
        "GPU-a",
        500,
    )
    gaps = {gap["what"]: gap for gap in found["gaps"]}
    assert gaps["nodes"]["why"] == "forbidden"
    assert "cannot list resource" in gaps["nodes"]["text"]
    assert gaps["pods"]["namespaces"] == [world.team]
    assert not found["complete"]


def test_a_user_who_may_list_nodes_sees_cards_with_own_slices(world: World) -> None:
    """Free amounts are upper bounds then, which is said."""
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}
    named = {"apiVersion": f"{group}/v1", "metadata": {"name": "ann-nodes"}}
    binding = {
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "ann-nodes"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": USER}],
    }
    world.plane.kubectl.apply(
        {**named, "kind": "ClusterRole", "rules": [rule]},
        {**named, "kind": "ClusterRoleBinding", **binding},
    )
    try:
        done = world.kubectl("gpu-fraction", "status", "-n", world.team, config=world.ann)
    finally:
        world.plane.kubectl("delete", "clusterrolebinding,clusterrole", "ann-nodes")
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith(NODE))
    assert row.split()[-1] == world.team
    assert "free amounts are upper bounds" in done.stderr


def test_a_user_without_rights_gets_no_answer(world: World) -> None:
    """Exit code 2, with the server's words."""
    done = world.kubectl("gpu-fraction", "status", "-n", world.other, config=world.ann)
    assert (done.returncode, done.stdout) == (2, "")
    assert f'User "{USER}" cannot list resource "nodes"' in done.stderr


def test_impersonation_is_the_server_s(world: World) -> None:
    """The administrator as the user sees what the user sees."""
    words = ("--by=pod", "-n", world.team)
    assert world.status(*words, f"--as={USER}") == world.status(*words, config=world.ann)


def test_quotas_and_what_would_fit(world: World) -> None:
    """Of the user's own namespace; nobody counts here, which is said."""
    done = world.kubectl("gpu-fraction", "quota", "-n", world.team, config=world.ann)
    assert done.returncode == 0, done.stderr
    assert "budget" in done.stdout
    assert "train" in done.stdout
    assert f"quota {world.team}/budget: not counted yet" in done.stderr


def test_top_says_where_use_is_not_measured(world: World) -> None:
    """There is no daemon on this node."""
    done = world.kubectl("gpu-fraction", "top", "-n", world.team)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    assert f"no measured use of {NODE}: no running node daemon" in done.stderr


def test_kubectl_lists_the_plugin_without_a_warning(world: World) -> None:
    """No name clashes, and the file can be executed."""
    done = world.kubectl("plugin", "list")
    assert done.returncode == 0, done.stderr
    assert str(world.programs / "kubectl-gpu_fraction") in done.stdout
    assert "warning" not in (done.stdout + done.stderr).lower()


def test_kubectl_completes_the_plugin(world: World) -> None:
    """By the program that lies beside it."""
    done = world.kubectl("__complete", "gpu-fraction", "status", "--by", "")
    assert done.stdout.splitlines()[:5] == ["card", "node", "model", "namespace", "pod"]
    names = world.kubectl("__complete", "gpu-fraction", "status", "-n", world.team[:8])
    assert world.team in names.stdout.splitlines()
