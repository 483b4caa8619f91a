"""Settings of the certificates, for every program that has to do with them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from certs.errors import LifetimeError
from certs.installation import Installation
from certs.lifetimes import Lifetimes
from gpu_fraction.domain.keys import SYSTEM_NAMESPACE
from gpu_fraction.settings.option import Option, SettingsError, Value, seconds, text, words

__all__ = ["INSTALLATION_OPTIONS", "LIFETIME_OPTIONS", "OPTIONS", "CertificateSettings", "load"]

_DEFAULTS: Final = Lifetimes()
_NAMES: Final = Installation()
_YEARS_S: Final = 20 * 365 * 86400.0
_PREFIX: Final = "cert_"


def _share(given: str) -> float:
    """A share of a life, between 0 and 1."""
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise ValueError("allowed: a share of a life, above 0 and below 1")
    return value


INSTALLATION_OPTIONS: Final = (
    Option("cert_namespace", text, SYSTEM_NAMESPACE, "namespace of the webhook's Service"),
    Option("cert_service", text, _NAMES.service, "the webhook's Service"),
    Option("cert_secret", text, _NAMES.secret, "Secret of the CA"),
    Option("cert_mutating", words, _NAMES.mutating, "our MutatingWebhookConfigurations"),
    Option("cert_validating", words, _NAMES.validating, "our ValidatingWebhookConfigurations"),
    Option("cert_crds", words, _NAMES.crds, "our CRDs with a conversion webhook"),
    Option("cert_cluster_domain", text, _NAMES.cluster_domain, "the cluster's DNS domain"),
    Option("cert_extra_names", words, _NAMES.extra_names, "further names or addresses served"),
)

LIFETIME_OPTIONS: Final = (
    Option("cert_ca_life", seconds(10, _YEARS_S), _DEFAULTS.ca_life_s, "life of a CA, seconds"),
    Option("cert_ca_renew_at", _share, _DEFAULTS.ca_renew_at, "replace a CA after this share"),
    Option("cert_leaf_life", seconds(5, _YEARS_S), _DEFAULTS.leaf_life_s, "of a leaf, seconds"),
    Option("cert_leaf_renew_at", _share, _DEFAULTS.leaf_renew_at, "sign anew after this share"),
    Option("cert_settle", seconds(1, 86400), _DEFAULTS.settle_s, "trusted before used, seconds"),
    Option("cert_retire", seconds(1, _YEARS_S), _DEFAULTS.retire_s, "trusted after use, seconds"),
    Option("cert_presence", seconds(1, 3600), _DEFAULTS.presence_s, "say what is served every"),
    Option("cert_replica_gone", seconds(2, 86400), _DEFAULTS.replica_gone_s, "silence, seconds"),
    Option("cert_check", seconds(1, 86400), _DEFAULTS.check_s, "look at least every, seconds"),
    Option(
        "cert_not_ready_below",
        seconds(0, 86400),
        _DEFAULTS.not_ready_below_s,
        "not ready with less life left, seconds",
    ),
)

OPTIONS: Final = (
    Option("cert_dir", text, None, "serve the mounted pair tls.crt, tls.key (cert-manager)"),
    *INSTALLATION_OPTIONS,
    *LIFETIME_OPTIONS,
)


@dataclass(frozen=True, slots=True)
class CertificateSettings:
    """The parsed options.

    Attributes:
        installation: The names.
        lifetimes: Lifetimes and waits.
        directory: A mounted pair that somebody else provides; None to look after ourselves.
    """

    installation: Installation
    lifetimes: Lifetimes
    directory: Path | None


def load(values: Mapping[str, Value]) -> CertificateSettings:
    """The parsed options.

    Raises:
        SettingsError: lifetimes that contradict each other.
    """
    get = {
        name.removeprefix(_PREFIX): v.value
        for name, v in values.items()
        if name.startswith(_PREFIX)
    }
    names = {f.name: get[f.name] for f in fields(Installation) if f.name in get}
    times = {f.name: get[key] for f in fields(Lifetimes) if (key := _key(f.name)) in get}
    try:
        lifetimes = Lifetimes(**times)
    except LifetimeError as e:
        raise SettingsError([str(e)]) from e
    directory = get.get("dir")
    return CertificateSettings(
        Installation(**names), lifetimes, None if directory is None else Path(directory)
    )


def _key(field: str) -> str:
    return field.removesuffix("_s")
