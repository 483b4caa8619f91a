"""Which object a URL path names, and which verb a request is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from gpu_fraction.sandbox.apiserver.faults import Call
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.storage import Key


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names: a collection, an object or a subresource."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        """Of the object in the storage."""
        return self.namespace, self.name

    def call(self, verb: str) -> Call:
        """For the rules about faults."""
        resource = self.kind.resource.qualified
        return Call(verb, resource, self.subresource, self.namespace, self.name)


class Routes:
    """The kinds that are served, by group, version and plural."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        """Serve these kinds."""
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        for kind in kinds:
            self.add(kind)

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def add(self, kind: Kind) -> None:
        """Serve a kind."""
        resource = kind.resource
        self._kinds[resource.group, resource.version, resource.plural] = kind

    def remove(self, kind: Kind) -> None:
        """Serve a kind no more."""
        resource = kind.resource
        self._kinds.pop((resource.group, resource.version, resource.plural), None)

    def find(self, path: str) -> Target | None:
        """The target of a path, or None where it names nothing that is served."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "api" and len(parts) > 2:
            group, version, rest = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            return None
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in {"status", "finalize"}:
            namespace, rest = rest[1], rest[2:]
        kind = self._kinds.get((group, version, rest[0]))
        if kind is None or len(rest) > 3 or (namespace and not kind.resource.namespaced):
            return None
        if kind.resource.namespaced and len(rest) > 1 and not namespace:
            return None
        return Target(kind, namespace, *rest[1:])


def verb_of(method: str, target: Target, *, watching: bool) -> str:
    """Kubernetes' word for a request; empty where there is none."""
    if method == "GET" and not target.name:
        return "watch" if watching else "list"
    if method == "DELETE" and not target.name:
        return "deletecollection"
    verbs = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    return verbs.get(method, "")
