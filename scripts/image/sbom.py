"""The software bill of materials of an image, as CycloneDX 1.6 JSON.

Each component lists the image's files that come from it (``evidence.occurrences``).
Source: CycloneDX 1.6, JSON schema.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from scripts.image.tree import Component

_NAMESPACE = uuid.UUID("5b2ff7a7-3f3e-4bb1-9d1b-0a4c4f9ad1c4")
"""Chosen at random, once: serial numbers follow from the image's digest."""


def bill(
    image: Component,
    digest: str,
    epoch_s: int,
    components: Iterable[Component],
    files: Mapping[str, Iterable[str]],
) -> dict[str, Any]:
    """The document.

    Args:
        image: the image itself, which also owns what is made for it.
        digest: of the image's manifest.
        epoch_s: time of the document.
        components: what the image is made of.
        files: absolute paths by the purl of the component.
    """
    listed = sorted(components, key=lambda component: component.purl)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch_s, UTC).isoformat().replace("+00:00", "Z"),
            "component": {
                **_component(image, "container"),
                "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
            },
        },
        "components": [
            {
                **_component(component, "library"),
                "evidence": {
                    "occurrences": [{"location": path} for path in sorted(files[component.purl])]
                },
            }
            for component in listed
        ],
        "dependencies": [
            {"ref": image.purl, "dependsOn": [component.purl for component in listed]},
            *({"ref": component.purl} for component in listed),
        ],
    }


def _component(component: Component, kind: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": kind,
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
    }
    if component.licences:
        made["licenses"] = [{"license": {"name": name}} for name in component.licences]
    if component.sha256:
        made["hashes"] = [{"alg": "SHA-256", "content": component.sha256}]
    return made
