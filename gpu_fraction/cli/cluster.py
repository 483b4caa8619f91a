"""How the programs of a cluster find its API server."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry

from gpu_fraction.kube import server_version
from gpu_fraction.kube.access import AccessSource, default_source
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.metrics import KubeMetrics
from gpu_fraction.settings.option import Option, SettingsError, Value, text

OPTIONS: Final = (
    Option("kubeconfig", text, None, "kubeconfig file; without one, the pod's service account"),
    Option("kube_context", text, None, "context of the kubeconfig instead of its current one"),
)

__all__ = ["OPTIONS", "access", "connected", "reachable", "require"]


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


@asynccontextmanager
async def connected(
    source: AccessSource, *, component: str, registry: CollectorRegistry
) -> AsyncIterator[Client]:
    """A daemon's client, for as long as the context lasts or until its server shows to be too old.

    The server's version is read beside what runs in the context, which waits for nothing.

    Args:
        source: where the server is and who we are.
        component: goes into the user agent, such as ``webhook``.
        registry: for the metrics of the requests.

    Raises:
        AccessError: there is no usable configuration.
        UnsupportedServerError: the server is too old.
    """
    async with connect(source, component=component, observer=KubeMetrics(registry)) as client:
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                check = tasks.create_task(server_version.check(client), name="server-version")
                yield client
                check.cancel()
        except BaseExceptionGroup as group:
            # What fails in the context leaves it as it is, not in a group with the check.
            too_old = group.subgroup(server_version.UnsupportedServerError)
            failure = (too_old or group).exceptions[0]
        if failure is not None:
            raise failure
