"""Lets the API server reach a webhook on this machine by the name of its Service.

There is no kube-proxy and no DNS. A Service of type ExternalName is enough: the API server
connects to the external name, and still checks the certificate for ``<service>.<namespace>.svc``.
"""

from typing import Any


def loopback_service(name: str, namespace: str) -> dict[str, Any]:
    """The Service; the webhook's port goes into ``clientConfig.service.port``."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
    }


def service_host(name: str, namespace: str) -> str:
    """The name that the webhook's certificate must carry."""
    return f"{name}.{namespace}.svc"
