"""A container runtime's view of the Container Device Interface."""

import json
from dataclasses import dataclass, field
from pathlib import Path


class UnresolvableError(Exception):
    """The runtime cannot make the container: a CDI name has no device, or two."""


@dataclass(frozen=True, slots=True)
class Started:
    """A container that runs.

    Attributes:
        uid: Its pod's UID.
        name: Its name.
        cdi_names: The CDI names it was made with.
        env: The environment that its devices gave it.
    """

    uid: str
    name: str
    cdi_names: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


class CdiRuntime:
    """Reads the specification files anew for each container, as after a complete refresh."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create(self, uid: str, name: str, cdi_names: tuple[str, ...]) -> Started:
        """Make a container.

        Raises:
            UnresolvableError: a name is in no file, or in more than one.
        """
        env: dict[str, str] = {}
        for cdi_name in cdi_names:
            found = [edits for n, edits in self.devices() if n == cdi_name]
            if len(found) != 1:
                raise UnresolvableError(f"{cdi_name}: {len(found)} devices")
            env |= found[0]
        return Started(uid, name, cdi_names, env)

    def devices(self) -> list[tuple[str, dict[str, str]]]:
        """Every device that it knows, by CDI name, with the environment that it gives."""
        devices = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                spec = json.loads(path.read_bytes())
            except FileNotFoundError:  # removed since the folder was listed
                continue
            for device in spec["devices"]:
                lines = device["containerEdits"].get("env", ())
                env = dict(line.split("=", 1) for line in lines)
                devices.append((f"{spec['kind']}={device['name']}", env))
        return devices
