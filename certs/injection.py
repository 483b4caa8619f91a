"""The caBundles in our webhook configurations and CRDs: read, written, read back.

Written by server-side apply under a field manager of our own, so that whoever applies the
manifests (without caBundle in them) does not take it away, and refused if the object has
changed since it was read.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from certs.actions import PublishBundle
from certs.bundle import Bundle, read_bundle, render_bundle
from certs.installation import Installation
from certs.observation import Target, TargetKind
from certs.wire import ClientConfig, ConversionCrd, WebhookConfiguration
from gpu_fraction.kube import errors
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.resources import (
    CRDS,
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
    Address,
    Resource,
)

__all__ = ["Injector", "addresses", "resource_of", "target_of"]

Carrier = WebhookConfiguration | ConversionCrd

_RESOURCES = {
    TargetKind.MUTATING: MUTATING_WEBHOOKS,
    TargetKind.VALIDATING: VALIDATING_WEBHOOKS,
    TargetKind.CRD: CRDS,
}
_CONVERSION = "conversion"


def resource_of(kind: TargetKind) -> Resource:
    """The API resource of a kind."""
    return _RESOURCES[kind]


def addresses(installation: Installation) -> list[tuple[TargetKind, Address]]:
    """Every object of ours that may carry a caBundle, whether or not it exists."""
    names = {
        TargetKind.MUTATING: installation.mutating,
        TargetKind.VALIDATING: installation.validating,
        TargetKind.CRD: installation.crds,
    }
    return [(kind, _RESOURCES[kind].at(name)) for kind in names for name in names[kind]]


def target_of(kind: TargetKind, carrier: Carrier, installation: Installation) -> Target:
    """What the planner needs of an object; webhooks of other Services are left alone."""
    if isinstance(carrier, ConversionCrd):
        conversion = carrier.spec.conversion
        webhook = None if conversion is None else conversion.webhook
        found = [] if webhook is None else [(_CONVERSION, webhook.client_config or ClientConfig())]
    else:
        found = [(entry.name, entry.client_config) for entry in carrier.webhooks or ()]
    bundles = tuple(
        read_bundle(name, config.ca_bundle or b"", server_name)
        for name, config in found
        if (server_name := _server_name(config, installation))
    )
    return Target(kind, carrier.metadata.name, bundles, carrier.metadata.resource_version)


class Injector:
    """The caBundles of one installation, through the API."""

    def __init__(self, client: Client, installation: Installation) -> None:
        self._client = client
        self._installation = installation

    async def read(self) -> list[Target]:
        """Every configuration that exists, past every cache.

        Raises:
            KubeError: one could not be read.
        """
        targets = []
        for kind, address in addresses(self._installation):
            into: type[Carrier] = ConversionCrd if kind is TargetKind.CRD else WebhookConfiguration
            try:
                carrier = await self._client.get(address, into)
            except errors.NotFoundError:
                continue
            targets.append(target_of(kind, carrier, self._installation))
        return targets

    async def publish(self, actions: Sequence[PublishBundle]) -> None:
        """Write the caBundles of one configuration, all of them in one request.

        Args:
            actions: For one and the same configuration.

        Raises:
            BundleError: one of them must not be published; nothing was written.
            ConflictError: the configuration has changed since it was read.
            KubeError: it could not be written.
        """
        target = actions[0].target
        # What an apply does not name is given up, so the untouched ones are named too.
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
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": target.name, "resourceVersion": target.resource_version},
            **_fields(target.kind, wanted),
        }
        into: type[Carrier] = (
            ConversionCrd if target.kind is TargetKind.CRD else WebhookConfiguration
        )
        written = await self._client.apply(
            resource.at(target.name),
            body,
            into,
            field_manager=self._installation.field_manager,
            force=True,
        )
        _check(target_of(target.kind, written, self._installation), wanted)


def _server_name(config: ClientConfig, installation: Installation) -> str:
    """What the API server will expect in our leaf; empty where the webhook is not ours."""
    if config.service is not None:
        ours = (config.service.name, config.service.namespace) == (
            installation.service,
            installation.namespace,
        )
        return f"{installation.service}.{installation.namespace}.svc" if ours else ""
    return urlsplit(config.url or "").hostname or ""


def _fields(kind: TargetKind, wanted: Mapping[str, str]) -> dict[str, Any]:
    encoded = {entry: base64.b64encode(pem.encode()).decode() for entry, pem in wanted.items()}
    if kind is TargetKind.CRD:
        config = {"caBundle": encoded[_CONVERSION]}
        return {"spec": {"conversion": {"webhook": {"clientConfig": config}}}}
    webhooks = [
        {"name": entry, "clientConfig": {"caBundle": bundle}} for entry, bundle in encoded.items()
    ]
    return {"webhooks": webhooks}


def _check(target: Target, wanted: Mapping[str, str]) -> None:
    """The server's answer shows what was sent.

    Raises:
        ConflictError: it does not; look again.
    """
    back: dict[str, Bundle] = {b.entry: b for b in target.bundles}
    for entry, pem in wanted.items():
        expected = read_bundle(entry, pem.encode()).fingerprints()
        if entry not in back or back[entry].fingerprints() != expected:
            raise errors.ConflictError(
                f"{target.kind} {target.name}: the caBundle of {entry} is not what was written"
            )
