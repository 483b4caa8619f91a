"""Every backend on a real API server: what its page shows is what is stored and charged."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpu_fraction.domain import amounts, keys, request_annotation
from gpu_fraction.domain.backends import BACKENDS
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.settings.declaration import options_of
from gpu_fraction.settings.rewrite import CostSettings
from tests.builders.pods import Raw, plain_pod
from tests.cluster.backend_examples import GROUPS, RUNTIME_CLASSES, Example, Group
from tests.cluster.harness.admission import REWRITE
from tests.cluster.harness.api_client import ApiClient, StatusError
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.process import Process
from tests.cluster.harness.quota import Quotas, condition, quota, quotas_installed
from tests.cluster.harness.stored import holds, own_tolerations

WHOLE = {"gpu-fraction": "1"}
WRITTEN = request_annotation.render(
    Request((Slice("c", core_milli=1000, memory_milli=1000),)), "another"
)
OF_ANOTHER = plain_pod("p", annotations={**WHOLE, keys.REQUEST: WRITTEN})
"""A pod that is refused with the name of the backend that its namespace has."""


@dataclass(frozen=True)
class Cluster:
    """A namespace for each backend, with a quota each.

    Attributes:
        quotas: One webhook, and a controller that has counted and stands still.
        namespaces: By backend.
        folder: For files of settings.
    """

    quotas: Quotas
    namespaces: Mapping[str, str]
    folder: Path

    @property
    def webhook(self) -> Process:
        """It takes its settings from a file at its start."""
        (process,) = self.quotas.admission.replicas
        return process

    @property
    def controller(self) -> Process:
        """It does too."""
        (process,) = self.quotas.controllers
        return process

    def serve(self, settings: Mapping[str, str]) -> None:
        """Start the webhook again, with these settings."""
        charged = {option.name for option in options_of(CostSettings)}
        for name, known in (("webhook", {*settings}), ("controller", charged & {*settings})):
            file = self.folder / f"{name}.yaml"
            file.write_text(json.dumps({one: settings[one] for one in known}))
        self.webhook.kill()  # it has no request, and would wait for the next ones
        self.webhook.log.unlink()
        self.webhook.start()
        self.quotas.admission.wait_listening(self.webhook)
        self.choose(self.namespaces["nvidia"], "nvidia")

    def choose(self, namespace: str, backend: str) -> None:
        """Label the namespace; the webhook learns of it by a watch."""
        kubectl = self.quotas.plane.kubectl
        chosen = f"{keys.LABEL_BACKEND}={backend}"
        kubectl("label", "--overwrite", "namespace", namespace, chosen)

        def followed() -> bool:
            done = kubectl.within(namespace).run("create", "-f", "-", stdin=OF_ANOTHER)
            return f"the pod's backend is {backend};" in done.stderr

        self.webhook.wait_until(followed, 60, f"aware of {chosen}")


@pytest.fixture(scope="module")
def cluster(
    own_control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Every backend is some namespace's, and pods may choose too."""
    plane, folder = own_control_plane, tmp_path_factory.mktemp("settings")
    for name in ("webhook", "controller"):
        (folder / f"{name}.yaml").write_text("{}")
    arguments = ["--namespace-backends", ",".join(BACKENDS), "--allow-pod-backend", "true"]
    arguments += ["--config", str(folder / "webhook.yaml")]
    plane.kubectl.apply(*(runtime_class(name) for name in RUNTIME_CLASSES))
    with quotas_installed(plane, replicas=1, controllers=1, webhook_arguments=arguments) as quotas:
        made = Cluster(quotas, {name: f"backend-{name}" for name in BACKENDS}, folder)
        made.webhook.argv = [word for word in made.webhook.argv if word not in REWRITE]
        made.controller.argv = [*made.controller.argv, "--config", folder / "controller.yaml"]
        plane.kubectl.apply(*(namespace_of(*pair) for pair in made.namespaces.items()))
        for at in made.namespaces.values():
            plane.wait_for_account(at)
        plane.kubectl.apply(*(quota("team-a", at, hard={}) for at in made.namespaces.values()))
        for at in made.namespaces.values():
            quotas.wait(at, "team-a", lambda q: condition(q, "Ready") == "True")
        made.controller.stop()
        try:
            yield made
        finally:
            plane.kubectl("delete", "namespace", "--wait=false", *made.namespaces.values())


def runtime_class(name: str) -> Raw:
    """Without it the API server refuses pods that name it."""
    metadata = {"name": name}
    kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass"}
    return {**kind, "metadata": metadata, "handler": name}


def namespace_of(backend: str, name: str) -> Raw:
    """A namespace that has chosen its backend."""
    metadata = {"name": name, "labels": {keys.LABEL_BACKEND: backend}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def backend_of(stored: Raw) -> str:
    """The backend that has rewritten the pod."""
    return str(json.loads(stored["metadata"]["annotations"][keys.REQUEST])["backend"])


def as_quantities(of: Mapping[str, int]) -> dict[str, str]:
    """As a quota's status writes them."""
    return {name: amounts.format_amount(name, amount) for name, amount in of.items()}


async def differences(
    cluster: Cluster, client: ApiClient, example: Example, name: str
) -> list[str]:
    """How the API server's pod and the quota's charge differ from what the page shows."""
    at = cluster.namespaces[example.backend]
    path = f"/api/v1/namespaces/{at}/pods"
    try:
        stored = await client.create(path, example.pod(name), fieldValidation="Strict")
    except StatusError as e:
        told = e.message.partition("denied the request: ")[2] or str(e)
        return [] if told == example.refused else [told]
    if example.refused:
        return ["is stored"]
    found = []
    if example.part == "annotated":
        stored["spec"]["tolerations"] = own_tolerations(stored["spec"])
        found = holds(stored, example.rewritten(name)) + holds(stored, example.shown)
    path = f"/apis/gpu-fraction.dev/v1alpha1/namespaces/{at}/gpuquotas/team-a"
    reserved = (await client.get(path))["status"].get("reserved", ())
    charged: Raw = next((one for one in reserved if one["podName"] == name), {})
    return found + holds(charged, as_quantities(example.charge(stored)), "charge")


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: str(group.settings))
async def test_the_examples_of_every_page(
    group: Group, cluster: Cluster, client: ApiClient
) -> None:
    """Accepted with strict validation, stored as shown and charged so; or refused so."""
    await asyncio.to_thread(cluster.serve, group.settings)
    start = f"e{GROUPS.index(group)}"
    found = [
        f"{example.page}, {example.of}: {told}"
        for index, example in enumerate(group.examples)
        if (told := await differences(cluster, client, example, f"{start}-{index}"))
    ]
    assert not found, "\n".join(found)


async def test_a_namespace_goes_from_backend_to_backend(
    cluster: Cluster, client: ApiClient, namespace: str
) -> None:
    """By one label each time; the pods that are there keep theirs, and their charge."""
    group = max(GROUPS, key=lambda one: len(one.first))
    await asyncio.to_thread(cluster.serve, group.settings)
    path = f"/api/v1/namespaces/{namespace}/pods"
    before: list[Raw] = []
    total: Counter[str] = Counter()
    cluster.controller.start()
    try:
        await asyncio.to_thread(cluster.quotas.create, namespace, hard={})
        for backend, example in group.first.items():
            await asyncio.to_thread(cluster.choose, namespace, backend)
            before.append(await client.create(path, example.pod(backend)))
            assert backend_of(before[-1]) == backend
            total.update(example.charge(before[-1]))
        for stored in before:
            kept = f"{path}/{stored['metadata']['name']}"
            after = await client.patch(kept, {"metadata": {"labels": {"touched": "yes"}}})
            assert after["spec"] == stored["spec"]
            assert after["metadata"]["annotations"] == stored["metadata"]["annotations"]
        used = as_quantities(total)
        await asyncio.to_thread(
            cluster.quotas.wait, namespace, "team-a", lambda q: q["status"].get("used") == used
        )
    finally:
        cluster.controller.stop()


async def test_a_pod_selects_its_backend(cluster: Cluster, client: ApiClient) -> None:
    """Before its namespace does; afterwards it cannot take another."""
    path = f"/api/v1/namespaces/{cluster.namespaces['native']}/pods"
    raw = plain_pod("chooses", annotations={**WHOLE, keys.BACKEND: "nvidia"})
    assert backend_of(await client.create(path, raw, fieldValidation="Strict")) == "nvidia"
    change = {"metadata": {"annotations": {keys.BACKEND: "native"}}}
    with pytest.raises(StatusError, match="cannot change after the pod is created"):
        await client.patch(f"{path}/chooses", change)
