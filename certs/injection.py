"""The caBundles in our webhook configurations: read and written.

They are written by server-side apply with a field manager of our own, so that applying the
manifests (which have no caBundle) removes none. A write fails if the object has changed since it
was read.
"""

import base64
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from gpu_fraction.certs.actions import PublishBundle
from gpu_fraction.certs.bundle import Target, TargetKind, read_bundle, render_bundle
from gpu_fraction.certs.settings import FIELD_MANAGER, Installation
from gpu_fraction.certs.wire import ClientConfig, WebhookConfiguration
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.resources import MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, Address

_RESOURCES = {
    TargetKind.MUTATING: MUTATING_WEBHOOKS,
    TargetKind.VALIDATING: VALIDATING_WEBHOOKS,
}


def addresses(installation: Installation) -> list[tuple[TargetKind, Address]]:
    """Every configuration of ours, whether or not it exists."""
    mutating = [(TargetKind.MUTATING, name) for name in installation.mutating]
    validating = [(TargetKind.VALIDATING, name) for name in installation.validating]
    return [(kind, _RESOURCES[kind].at(name)) for kind, name in (*mutating, *validating)]


def target_of(
    kind: TargetKind, configuration: WebhookConfiguration, installation: Installation
) -> Target:
    """The caBundles of a configuration, without webhooks of other Services."""
    bundles = tuple(
        read_bundle(entry.name, entry.client_config.ca_bundle or b"", server_name)
        for entry in configuration.webhooks or ()
        if (server_name := _server_name(entry.client_config, installation))
    )
    metadata = configuration.metadata
    return Target(kind, metadata.name, bundles, metadata.resource_version)


class Injector:
    """The caBundles of one installation, through the API."""

    def __init__(self, client: Client, installation: Installation) -> None:
        self._client = client
        self._installation = installation

    async def read(self) -> list[Target]:
        """Every configuration that exists, read from the API server.

        Raises:
            KubeError: one could not be read.
        """
        targets = []
        for kind, address in addresses(self._installation):
            try:
                found = await self._client.get(address, WebhookConfiguration)
            except errors.NotFoundError:
                continue
            targets.append(target_of(kind, found, self._installation))
        return targets

    async def publish(self, actions: Sequence[PublishBundle]) -> None:
        """Write the caBundles of one configuration in one request.

        Args:
            actions: All for the same configuration.

        Raises:
            BundleError: one of them must not be published; nothing was written.
            ConflictError: the configuration has changed since it was read.
            KubeError: it could not be written.
        """
        target = actions[0].target
        # An apply gives up fields that it does not name, so it names the unchanged ones too.
        wanted = {
            b.entry: "".join(c.pem for c in b.certificates)
            for b in target.bundles
            if b.certificates
        }
        present = {b.entry: b.fingerprints() for b in target.bundles}
        for action in actions:
            wanted[action.entry] = render_bundle(
                action.certificates, action.must_trust, present[action.entry]
            )
        resource = _RESOURCES[target.kind]
        webhooks = [
            {
                "name": entry,
                "clientConfig": {"caBundle": base64.b64encode(pem.encode()).decode()},
            }
            for entry, pem in wanted.items()
        ]
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": target.name, "resourceVersion": target.resource_version},
            "webhooks": webhooks,
        }
        # The lease holder reads the result again before it goes on.
        await self._client.apply(
            resource.at(target.name),
            body,
            msgspec.Raw,
            field_manager=FIELD_MANAGER,
            force=True,
        )


def _server_name(config: ClientConfig, installation: Installation) -> str:
    """The name that the API server expects in our leaf; empty for another Service."""
    if config.service is None:
        return urlsplit(config.url or "").hostname or ""
    named = (config.service.name, config.service.namespace)
    ours = named == (installation.service, installation.namespace)
    return installation.server_names[0] if ours else ""
