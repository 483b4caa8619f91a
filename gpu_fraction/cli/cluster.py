"""How the programs of a cluster find its API server."""

from collections.abc import Mapping
from typing import Final

from gpu_fraction.kube.access import AccessSource, default_source
from gpu_fraction.settings.option import Option, SettingsError, Value, text

OPTIONS: Final = (
    Option("kubeconfig", text, None, "kubeconfig file; without one, the pod's service account"),
    Option("kube_context", text, None, "context of the kubeconfig instead of its current one"),
)

__all__ = ["OPTIONS", "access", "reachable", "require"]


def reachable(values: Mapping[str, Value], environ: Mapping[str, str]) -> bool:
    """Whether a cluster is named, by a kubeconfig or by running in it."""
    return values["kubeconfig"].value is not None or "KUBERNETES_SERVICE_HOST" in environ


def require(values: Mapping[str, Value], environ: Mapping[str, str]) -> None:
    """See that a cluster is named.

    Raises:
        SettingsError: none is.
    """
    if not reachable(values, environ):
        raise SettingsError(["--kubeconfig is needed outside a cluster"])


def access(values: Mapping[str, Value], environ: Mapping[str, str]) -> AccessSource:
    """Where the API server is and who we are."""
    return default_source(
        environ,
        path=values["kubeconfig"].value or "",
        context=values["kube_context"].value or "",
    )
