"""The admission policy as people apply it, and users whom nothing else would refuse."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpu_fraction.domain import keys
from tests.cluster.harness.admission import SYSTEM_NAMESPACE
from tests.cluster.harness.api_client import ApiClient
from tests.cluster.harness.control_plane import ControlPlane
from tests.cluster.harness.waiting import wait_for

FOLDER = Path(__file__).parents[3] / "deploy" / "admission-policy"
DENIED = "ValidatingAdmissionPolicy 'gpu-fraction' with binding 'gpu-fraction' denied"
_OURS = f"system:serviceaccount:{SYSTEM_NAMESPACE}:gpu-fraction-"
ACCOUNTS: Mapping[str, str] = {
    "tenant": "jane",
    "namesake": "system:serviceaccount:team:gpu-fraction-scheduler",
    "kubelet": "system:node:elsewhere",
    "kube-scheduler": "system:kube-scheduler",
    "webhook": _OURS + "webhook",
    "controller": _OURS + "controller",
    "scheduler": _OURS + "scheduler",
    "node-daemon": _OURS + "node-daemon",
}
"""Who tries to write, by what the tests call them."""


def pod(name: str, annotations: Mapping[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A small pod that no scheduler looks at."""
    container = {"name": "main", "image": "docker.io/library/busybox:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": dict(annotations or {})},
        "spec": {"containers": [container], "schedulerName": "nobody", **spec},
    }


@contextlib.contextmanager
def policy_installed(plane: ControlPlane) -> Iterator[None]:
    """The policy, from the moment it is obeyed until it is obeyed no more."""
    probe = pod("probe", {keys.ASSIGNED: "{}"})

    def refuses() -> bool:
        done = plane.kubectl.run("create", "--dry-run=server", "-f", "-", stdin=probe)
        return DENIED in done.stderr

    plane.kubectl("apply", "-k", str(FOLDER), "--validate=strict")
    try:
        wait_for(refuses)
        yield
    finally:
        plane.kubectl("delete", "-k", str(FOLDER))
        wait_for(lambda: not refuses())


class Users(contextlib.AsyncExitStack):
    """Clients by user name; whom RBAC would stop is in ``system:masters``."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__()
        self._plane = plane
        self._made: dict[str, ApiClient] = {}

    async def named(self, user: str, group: str = "system:masters") -> ApiClient:
        """The client of a user in one group."""
        if user not in self._made:
            client = ApiClient(self._plane.access, user, group)
            self._made[user] = await self.enter_async_context(client)
        return self._made[user]
