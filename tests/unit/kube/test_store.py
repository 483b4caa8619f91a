"""The store agrees with a plain dictionary whatever happens to it."""

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gpu_fraction.kube.objects import Key, Meta
from gpu_fraction.kube.store import Change, Store

NAMES = st.sampled_from(["a", "b", "c"])
NAMESPACES = st.sampled_from(["x", "y"])
NODES = st.sampled_from(["", "n1", "n2"])
VERSIONS = st.integers(1, 5)
UIDS = st.integers(1, 2)


class Pod(msgspec.Struct, frozen=True):
    """As much of a pod as the test looks at."""

    metadata: Meta
    node: str = ""


def pod(namespace: str, name: str, uid: int, version: int, node: str) -> Pod:
    """A pod; the uid is unique to namespace and name."""
    meta = Meta(
        namespace=namespace,
        name=name,
        uid=f"{namespace}/{name}/{uid}",
        resource_version=f"{version}",
    )
    return Pod(meta, node)


PODS = st.builds(pod, NAMESPACES, NAMES, UIDS, VERSIONS, NODES)


class StoreMachine(RuleBasedStateMachine):
    """Puts, removals and relists against a dictionary; a listener mirrors every change."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Store[Pod] = Store(
            {
                "node": lambda pod: [pod.node] if pod.node else [],
                "namespace": lambda pod: [pod.metadata.namespace],
            }
        )
        self.model: dict[Key, Pod] = {}
        self.mirror: dict[str, Pod] = {}

    @rule(new=PODS)
    def put(self, new: Pod) -> None:
        """A known version changes nothing; anything else replaces."""
        key = (new.metadata.namespace, new.metadata.name)
        old = self.model.get(key)
        self._follow(self.store.put(new))
        if old is None or old.metadata != new.metadata:
            self.model[key] = new

    @rule(namespace=NAMESPACES, name=NAMES)
    def remove(self, namespace: str, name: str) -> None:
        """Removing what is not there is no change."""
        changes = self.store.remove((namespace, name))
        assert len(changes) == (self.model.pop((namespace, name), None) is not None)
        self._follow(changes)

    @rule(
        pods=st.lists(PODS, unique_by=lambda p: (p.metadata.namespace, p.metadata.name)),
        kept=NAMES,
    )
    def replace(self, pods: list[Pod], kept: str) -> None:
        """A relist leaves what it lists, and what it could not read."""
        self._follow(self.store.replace(pods, keep=[("x", kept)]))
        listed = {(p.metadata.namespace, p.metadata.name): p for p in pods}
        for key, old in list(self.model.items()):
            if key not in listed and key != ("x", kept):
                del self.model[key]
            elif key in listed and old.metadata == listed[key].metadata:
                listed[key] = old
        self.model.update(listed)

    def _follow(self, changes: Any) -> None:
        for change in changes:
            assert change.old or change.new
            if change.old is not None:
                assert self.mirror.pop(change.old.metadata.uid) == change.old
            if change.new is not None:
                assert change.new.metadata.uid not in self.mirror
                self.mirror[change.new.metadata.uid] = change.new

    @invariant()
    def agrees_with_the_model(self) -> None:
        """Every way to look an object up gives what the dictionary holds."""
        pods = list(self.model.values())
        assert sorted(map(repr, self.store)) == sorted(map(repr, pods))
        assert len(self.store) == len(pods)
        for (namespace, name), obj in self.model.items():
            assert self.store.get(name, namespace) == obj
        for node in ("n1", "n2"):
            found = {p.metadata.uid for p in self.store.find("node", node)}
            assert found == {p.metadata.uid for p in pods if p.node == node}
        for namespace in ("x", "y"):
            assert len(self.store.find("namespace", namespace)) == sum(
                key[0] == namespace for key in self.model
            )

    @invariant()
    def listeners_miss_nothing(self) -> None:
        """Who follows the changes alone ends with the same objects."""
        assert self.mirror == {p.metadata.uid: p for p in self.model.values()}


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=25)


def test_a_removal_reports_the_last_known_state() -> None:
    """The final state of a deletion event is what listeners get."""
    store: Store[Pod] = Store()
    store.put(pod("x", "a", 1, 1, "n1"))
    last = pod("x", "a", 1, 2, "n1")
    assert store.remove(("x", "a"), last) == [Change(last, None)]
