"""Settings of the certificates: names and lifetimes, for each program that needs them."""

from collections.abc import Mapping
from dataclasses import dataclass
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


INSTALLATION_OPTIONS: Final = (
    Option("cert_namespace", text, SYSTEM_NAMESPACE, "namespace of the webhook's Service"),
    Option("cert_service", text, _NAMES.service, "the webhook's Service"),
    Option("cert_mutating", words, _NAMES.mutating, "our MutatingWebhookConfigurations"),
    Option("cert_validating", words, _NAMES.validating, "our ValidatingWebhookConfigurations"),
    Option("cert_extra_names", words, _NAMES.extra_names, "more DNS names or IPs in the leaf"),
)

LIFETIME_OPTIONS: Final = (
    Option("cert_ca_life", seconds(10, _YEARS_S), _DEFAULTS.ca_life_s, "life of a CA, seconds"),
    Option(
        "cert_leaf_life", seconds(5, _YEARS_S), _DEFAULTS.leaf_life_s, "life of a leaf, seconds"
    ),
    Option("cert_settle", seconds(1, 86400), _DEFAULTS.settle_s, "trusted before used, seconds"),
    Option("cert_retire", seconds(1, _YEARS_S), _DEFAULTS.retire_s, "trusted after use, seconds"),
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
        directory: A mounted pair that others provide; None for self-managed certificates.
    """

    installation: Installation
    lifetimes: Lifetimes
    directory: Path | None


def load(values: Mapping[str, Value]) -> CertificateSettings:
    """The parsed options.

    Raises:
        SettingsError: lifetimes that contradict each other.
    """
    names, times = (
        {option.name.removeprefix("cert_"): values[option.name].value for option in options}
        for options in (INSTALLATION_OPTIONS, LIFETIME_OPTIONS)
    )
    try:
        lifetimes = Lifetimes(**{f"{name}_s": value for name, value in times.items()})
    except LifetimeError as e:
        raise SettingsError([str(e)]) from e
    directory = values["cert_dir"].value if "cert_dir" in values else None
    return CertificateSettings(
        Installation(**names), lifetimes, None if directory is None else Path(directory)
    )
