"""Settings of the self-managed certificates."""

import socket
from collections.abc import Mapping
from typing import Final

from certs.errors import LifetimeError
from certs.installation import Installation
from certs.lifetimes import DAY_S, Lifetimes
from certs.presence import ReplicaIdentity
from gpu_fraction.settings.option import Option, SettingsError, Value, seconds, text, words

__all__ = ["OPTIONS", "REPLICA_OPTIONS", "identity", "installation", "lifetimes"]

_DEFAULT: Final = Lifetimes()
_NAMES: Final = Installation()
_LONG: Final = 3650 * DAY_S


def _share(given: str) -> float:
    try:
        value = float(given) if given.replace(".", "", 1).isdigit() else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise ValueError("allowed: a share of a life between 0 and 1")
    return value


OPTIONS: Final = (
    Option("system_namespace", text, _NAMES.namespace, "namespace of Service, Secret and Leases"),
    Option("webhook_service", text, _NAMES.service, "the webhook's Service"),
    Option("ca_secret", text, _NAMES.secret, "Secret that holds the CA"),
    Option("cluster_domain", text, _NAMES.cluster_domain, "the cluster's DNS domain"),
    Option("extra_names", words, (), "further names or addresses that the certificate carries"),
    Option("ca_life", seconds(1, _LONG), _DEFAULT.ca_life_s, "life of a CA, seconds"),
    Option("ca_renew_at", _share, _DEFAULT.ca_renew_at, "share of a CA's life before the next"),
    Option("leaf_life", seconds(1, _LONG), _DEFAULT.leaf_life_s, "life of a leaf, seconds"),
    Option("leaf_renew_at", _share, _DEFAULT.leaf_renew_at, "share of a leaf's life likewise"),
    Option("ca_settle", seconds(0, _LONG), _DEFAULT.settle_s, "wait before a new CA is used, s"),
    Option("ca_retire", seconds(0, _LONG), _DEFAULT.retire_s, "wait before an old CA goes, s"),
    Option("cert_presence", seconds(0.1, 3600), _DEFAULT.presence_s, "how often replicas report"),
    Option("cert_gone", seconds(0.2, 3600), _DEFAULT.replica_gone_s, "silence that counts, s"),
    Option(
        "cert_not_ready_below",
        seconds(0, _LONG),
        _DEFAULT.not_ready_below_s,
        "life left below which a replica is not ready, seconds",
    ),
)

REPLICA_OPTIONS: Final = (
    Option("replica_name", text, None, "this replica's name; default: the host's"),
    Option("replica_uid", text, None, "uid of this replica's Pod, which then owns its Lease"),
)


def installation(values: Mapping[str, Value]) -> Installation:
    """The names of the objects."""
    get = {name: value.value for name, value in values.items()}
    return Installation(
        namespace=get["system_namespace"],
        service=get["webhook_service"],
        secret=get["ca_secret"],
        cluster_domain=get["cluster_domain"],
        extra_names=get["extra_names"],
    )


def lifetimes(values: Mapping[str, Value]) -> Lifetimes:
    """Lifetimes and waits.

    Raises:
        SettingsError: two of them contradict each other.
    """
    get = {name: value.value for name, value in values.items()}
    try:
        return Lifetimes(
            ca_life_s=get["ca_life"],
            ca_renew_at=get["ca_renew_at"],
            leaf_life_s=get["leaf_life"],
            leaf_renew_at=get["leaf_renew_at"],
            settle_s=get["ca_settle"],
            retire_s=get["ca_retire"],
            presence_s=get["cert_presence"],
            replica_gone_s=get["cert_gone"],
            not_ready_below_s=get["cert_not_ready_below"],
        )
    except LifetimeError as e:
        raise SettingsError([str(e)]) from e


def identity(values: Mapping[str, Value]) -> ReplicaIdentity:
    """Who this webhook process is; it serves, and it stands for election."""
    return ReplicaIdentity(
        name=values["replica_name"].value or socket.gethostname(),
        pod_uid=values["replica_uid"].value or "",
    )
