"""What every test may use of a cluster, be it the harness's own or an existing one."""

import base64
import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cache import version_key
from tests.cluster.harness.kubeconfig import Access
from tests.cluster.harness.kubectl import Kubectl, KubectlError

_TOKEN_LIFETIME_S = 3600
_ACCOUNT_TIMEOUT_S = 120
"""Above what a controller waits before it looks again at an API server that was down: up to a
minute (client-go's reflector)."""
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster and full access to it.

    Attributes:
        access: of an administrator.
        kubectl: as that administrator, in namespace ``default``.
        version: of the API server, such as ``(1, 20, 2)``.
        folder: for files of the tests.
    """

    access: Access
    kubectl: Kubectl
    version: tuple[int, ...]
    folder: Path

    def create_namespace(self) -> str:
        """A new namespace in which pods can be created; returns its name."""
        name = f"test-{secrets.token_hex(4)}"
        self.kubectl("create", "namespace", name)
        self.wait_for_account(name)
        return name

    @contextlib.contextmanager
    def namespace(self) -> Iterator[str]:
        """A new namespace that is deleted afterwards: its pods would start on a later node."""
        name = self.create_namespace()
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def wait_for_account(self, namespace: str) -> None:
        """Waits for ServiceAccount ``default``: pods are refused before it is there.

        Raises:
            TimeoutError: no controller made it.
        """
        deadline = time.monotonic() + _ACCOUNT_TIMEOUT_S
        look = ("get", "serviceaccount", "default", "-o", "name")
        while self.kubectl.within(namespace).run(*look).returncode != 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no ServiceAccount default in {namespace}")
            time.sleep(_POLL_S)

    def service_account_kubeconfig(self, namespace: str, name: str, *, node: str = "") -> Path:
        """A kubeconfig with a token of a ServiceAccount, good for an hour.

        With ``node`` the token names that node, as those do that the kubelet mounts.
        """
        url = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        bound = {"boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": node}}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _TOKEN_LIFETIME_S, **(bound if node else {})},
        }
        answer = json.loads(self.kubectl("create", "--raw", url, "-f", "-", stdin=request))
        user = {"token": str(answer["status"]["token"])}
        access = Access(self.access.server, self.access.authority, user)
        return access.write(self.folder / f"{namespace}-{name}.kubeconfig")


def existing_cluster(kubeconfig: Path, binaries: Binaries, folder: Path) -> Cluster:
    """The cluster that a kubeconfig names.

    Args:
        kubeconfig: its current context is used; certificates or a token, no plug-ins.
        binaries: kubectl is needed.
        folder: for copies of its keys.

    Raises:
        KubectlError: the cluster does not answer, or the kubeconfig cannot be used.
    """
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder)}
    kubectl = Kubectl(binaries["kubectl"], kubeconfig, env)
    words = ("config", "view", "--raw", "--minify", "--flatten")
    config = kubectl.json(*words)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    if not {"client-certificate-data", "token"} & user.keys():
        raise KubectlError(f"{kubeconfig}: its user has neither a certificate nor a token")
    authority = folder / "existing-ca.crt"
    authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    known = {}
    for field in ("client-certificate", "client-key"):
        if data := user.get(f"{field}-data"):
            path = folder / f"existing.{field}"
            path.touch(mode=0o600)
            path.write_bytes(base64.b64decode(data))
            known[field] = str(path)
    if "token" in user:
        known["token"] = user["token"]
    version = kubectl.json("version")["serverVersion"]["gitVersion"]
    access = Access(cluster["server"], authority, known)
    return Cluster(access, kubectl, version_key(version), folder)
