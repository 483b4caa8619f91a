"""The connection to the cluster's API server."""

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
    """The cluster to connect to."""

    kubeconfig: str | None = setting(
        text, None, "kubeconfig file; default: the pod's service account"
    )
    kube_context: str | None = setting(text, None, "kubeconfig context; default: the current one")

    def reachable(self, environ: Mapping[str, str]) -> bool:
        """Whether a kubeconfig is set or the process runs in a cluster."""
        return self.kubeconfig is not None or "KUBERNETES_SERVICE_HOST" in environ

    def access(self, environ: Mapping[str, str]) -> AccessSource:
        """The address and credentials of the API server.

        Raises:
            SettingsError: no kubeconfig is set outside a cluster.
        """
        if not self.reachable(environ):
            raise SettingsError(["--kubeconfig is required outside a cluster"])
        return default_source(environ, path=self.kubeconfig or "", context=self.kube_context or "")


@asynccontextmanager
async def connected(
    source: AccessSource, *, component: str, registry: CollectorRegistry
) -> AsyncIterator[Client]:
    """Connect a daemon's client; the context fails if the API server is too old.

    The version check runs in parallel to the context.

    Args:
        source: The address and credentials of the server.
        component: The user agent, for example ``webhook``.
        registry: The registry of the request metrics.

    Raises:
        AccessError: the configuration is unusable.
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
            # A failure in the context is raised as it is, without the group of the check.
            too_old = group.subgroup(server_version.UnsupportedServerError)
            failure = (too_old or group).exceptions[0]
        if failure is not None:
            raise failure
