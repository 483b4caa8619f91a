"""How the programs of a cluster find its API server."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from gpu_fraction.kube import server_version
from gpu_fraction.kube.access import AccessSource, default_source
from gpu_fraction.kube.client import Client, connect
from gpu_fraction.kube.metrics import KubeMetrics
from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.option import SettingsError
from gpu_fraction.settings.parsers import text


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Which cluster."""

    kubeconfig: str | None = setting(
        text, None, "kubeconfig file; without one, the pod's service account"
    )
    kube_context: str | None = setting(
        text, None, "context of the kubeconfig instead of its current one"
    )

    def reachable(self, environ: Mapping[str, str]) -> bool:
        """Whether a cluster is named, by a kubeconfig or by running in it."""
        return self.kubeconfig is not None or "KUBERNETES_SERVICE_HOST" in environ

    def access(self, environ: Mapping[str, str]) -> AccessSource:
        """Where the API server is and who we are.

        Raises:
            SettingsError: no cluster is named.
        """
        if not self.reachable(environ):
            raise SettingsError(["--kubeconfig is needed outside a cluster"])
        return default_source(environ, path=self.kubeconfig or "", context=self.kube_context or "")


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
