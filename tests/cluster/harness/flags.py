"""Command lines of the control plane's components."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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

_ISSUER = "https://kubernetes.default.svc"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a control plane runs.

    Attributes:
        address: the loopback address that all its components listen on.
        service_subnet: the Services' addresses.
        kubernetes: the address of the Service ``kubernetes``, the first of them.
        folder: the run's.
        authority: its certificates; the service account key lies beside them.
    """

    address: str
    service_subnet: str
    kubernetes: str
    folder: Path
    authority: Authority

    @property
    def account_key(self) -> Path:
        """Signs and verifies service account tokens."""
        return self.authority.folder / "service-accounts.key"


def etcd(place: Place, client_url: str, peer_url: str) -> list[str]:
    """Flags of etcd."""
    return [
        f"--data-dir={place.folder}/etcd",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-client-urls={client_url}",
        "--unsafe-no-fsync",  # no test needs what a crash of the machine would lose
    ]


def api_server(place: Place, server: str, etcd_url: str) -> Flags:
    """kube-apiserver's flags."""
    pki = place.authority
    hosts = [place.address, "localhost", "kubernetes.default.svc", place.kubernetes]
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
        "service-cluster-ip-range": place.service_subnet,
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


def scheduler_config(options: ControlPlaneOptions, kubeconfig: Path) -> dict[str, Any]:
    """KubeSchedulerConfiguration v1."""
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(kubeconfig),
            "qps": options.client_qps,
            "burst": 2 * options.client_qps,
        },
        **options.scheduler_config,
    }


def _controller(place: Place, name: str, kubeconfig: Path) -> dict[str, str]:
    certificate, key = place.authority.issue(f"{name}-server", name, hosts=[place.address])
    return {
        "bind-address": place.address,
        "secure-port": str(free_port(place.address)),
        "cert-dir": f"{place.folder}/{name}",
        "tls-cert-file": str(certificate),
        "tls-private-key-file": str(key),
        "authentication-kubeconfig": str(kubeconfig),
        "authorization-kubeconfig": str(kubeconfig),
    }
