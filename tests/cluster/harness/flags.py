"""Command lines of the control plane's components, for old and new versions of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.cluster.harness.binaries import program_version
from tests.cluster.harness.options import ControlPlaneOptions, Flags
from tests.cluster.harness.pki import Authority
from tests.cluster.harness.ports import free_port

__all__ = [
    "Flags",
    "Place",
    "api_server",
    "controller_manager",
    "etcd",
    "scheduler",
    "scheduler_config",
]

SERVICE_SUBNET = "10.96.0.0/16"
_ISSUER = "https://kubernetes.default.svc"
_LAST_WITH_INSECURE_PORT = (1, 23)
"""Up to here controllers listen without TLS on every address unless told not to.
Source: the `--port` flag of kube-controller-manager, gone in Kubernetes 1.24."""
_ETCD_WITHOUT_SYNC = (3, 5)
"""The first with `--unsafe-no-fsync`. Source: etcd 3.5 changelog."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a control plane runs.

    Attributes:
        address: the loopback address that all its components listen on.
        folder: the run's.
        authority: its certificates; the service account key lies beside them.
        version: of Kubernetes.
    """

    address: str
    folder: Path
    authority: Authority
    version: tuple[int, ...]

    @property
    def account_key(self) -> Path:
        """Signs and verifies service account tokens."""
        return self.authority.folder / "service-accounts.key"


def etcd(place: Place, binary: Path, client_url: str, peer_url: str) -> list[str]:
    """Flags of etcd."""
    own = [
        f"--data-dir={place.folder}/etcd",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-client-urls={client_url}",
    ]
    if program_version(binary) >= _ETCD_WITHOUT_SYNC:
        own.append("--unsafe-no-fsync")
    return own


def api_server(place: Place, server: str, etcd_url: str) -> Flags:
    """kube-apiserver's flags."""
    pki = place.authority
    hosts = [place.address, "localhost", "kubernetes.default.svc", "10.96.0.1"]
    certificate, key = pki.issue("kube-apiserver", "kube-apiserver", hosts=hosts)
    # The group lets it read logs and open shells at a kubelet.
    client, client_key = pki.issue("kubelet-client", "kube-apiserver", ["system:masters"])
    return {
        "bind-address": place.address,
        "advertise-address": place.address,
        "secure-port": str(urlsplit(server).port),
        "etcd-servers": etcd_url,
        "cert-dir": f"{place.folder}/kube-apiserver",
        "tls-cert-file": str(certificate),
        "tls-private-key-file": str(key),
        "client-ca-file": str(pki.certificate),
        # Nobody holds such a certificate; without these, controllers complain every 20 s.
        "requestheader-client-ca-file": str(pki.certificate),
        "requestheader-allowed-names": "front-proxy",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "kubelet-certificate-authority": str(pki.certificate),
        "kubelet-client-certificate": str(client),
        "kubelet-client-key": str(client_key),
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": _ISSUER,
        "service-account-key-file": str(place.account_key),
        "service-account-signing-key-file": str(place.account_key),
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "endpoint-reconciler-type": "none",
        "service-cluster-ip-range": SERVICE_SUBNET,
    }


def controller_manager(place: Place, options: ControlPlaneOptions, kubeconfig: Path) -> Flags:
    """kube-controller-manager's flags."""
    return {
        **_controller(place, "kube-controller-manager", kubeconfig),
        "kubeconfig": str(kubeconfig),
        "leader-elect": "false",
        "use-service-account-credentials": "true",
        "service-account-private-key-file": str(place.account_key),
        "root-ca-file": str(place.authority.certificate),
        "cluster-signing-cert-file": str(place.authority.certificate),
        "cluster-signing-key-file": str(place.authority.key),
        "kube-api-qps": str(options.client_qps),
        "kube-api-burst": str(2 * options.client_qps),
    }


def scheduler(place: Place, config: Path, kubeconfig: Path) -> Flags:
    """kube-scheduler's flags."""
    return {**_controller(place, "kube-scheduler", kubeconfig), "config": str(config)}


def scheduler_config(
    place: Place, options: ControlPlaneOptions, kubeconfig: Path
) -> dict[str, Any]:
    """KubeSchedulerConfiguration in the version that the scheduler reads."""
    config: dict[str, Any] = {
        "apiVersion": f"kubescheduler.config.k8s.io/{_config_version(place.version)}",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(kubeconfig),
            "qps": options.client_qps,
            "burst": 2 * options.client_qps,
        },
    }
    if place.version[:2] <= _LAST_WITH_INSECURE_PORT:
        # Empty would mean port 10251 of every address; this port serves without TLS.
        insecure = f"{place.address}:{free_port(place.address)}"
        config |= {"healthzBindAddress": insecure, "metricsBindAddress": insecure}
    return config | dict(options.scheduler_config)


def _config_version(version: tuple[int, ...]) -> str:
    """Source: the scheduler's deprecations: v1beta2 came in 1.22, v1 in 1.25."""
    if version < (1, 22):
        return "v1beta1"
    return "v1beta2" if version < (1, 25) else "v1"


def _controller(place: Place, name: str, kubeconfig: Path) -> dict[str, str]:
    certificate, key = place.authority.issue(f"{name}-server", name, hosts=[place.address])
    flags = {
        "bind-address": place.address,
        "secure-port": str(free_port(place.address)),
        "cert-dir": f"{place.folder}/{name}",
        "tls-cert-file": str(certificate),
        "tls-private-key-file": str(key),
        "authentication-kubeconfig": str(kubeconfig),
        "authorization-kubeconfig": str(kubeconfig),
    }
    if place.version[:2] <= _LAST_WITH_INSECURE_PORT:
        flags["port"] = "0"
    return flags
