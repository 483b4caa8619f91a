"""The storage remembers every state it was in, until it is told to forget."""

import copy
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpu_fraction.kube.resources import NODES, PODS
from gpu_fraction.sandbox.apiserver.failures import ApiFailure
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.storage import Key, Storage

POD, NODE = Kind(PODS), Kind(NODES)
KEYS = st.sampled_from([("a", "x"), ("a", "y"), ("b", "x")])


def body(kind: Kind, key: Key, value: int) -> dict[str, Any]:
    """An object that carries a number."""
    resource = kind.resource
    metadata = {"namespace": key[0], "name": key[1]}
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "value": value,
    }


class StorageMachine(RuleBasedStateMachine):
    """Writes, deletions and compactions against a list of all states so far."""

    def __init__(self) -> None:
        super().__init__()
        self.storage = Storage()
        self.states: dict[int, dict[Key, int]] = {self.storage.revision: {}}
        self.compacted = 0

    @property
    def now(self) -> dict[Key, int]:
        """The current state of the model."""
        return self.states[self.storage.revision]

    @rule(key=KEYS, value=st.integers(0, 9))
    def put(self, key: Key, value: int) -> None:
        """A write makes a version."""
        before = dict(self.now)
        stored = self.storage.put(POD, key, body(POD, key, value))
        assert stored.body["metadata"]["resourceVersion"] == str(self.storage.revision)
        self.states[self.storage.revision] = {**before, key: value}

    @precondition(lambda self: self.now)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """So does a deletion."""
        key = data.draw(st.sampled_from(sorted(self.now)))
        before = dict(self.now)
        self.storage.delete(POD, key)
        del before[key]
        self.states[self.storage.revision] = before

    @rule(value=st.integers(0, 9))
    def write_elsewhere(self, value: int) -> None:
        """Other kinds share the versions and nothing else."""
        before = self.now
        self.storage.put(NODE, ("", "n"), body(NODE, ("", "n"), value))
        self.states[self.storage.revision] = before

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        """What is older than a version is forgotten."""
        self.compacted = data.draw(st.integers(self.compacted, self.storage.revision))
        self.storage.compact(self.compacted)

    @invariant()
    def every_remembered_state_can_be_read(self) -> None:
        """And the forgotten ones say so."""
        for revision, state in self.states.items():
            if revision < self.compacted:
                with pytest.raises(ApiFailure) as caught:
                    self.storage.snapshot(POD, revision)
                assert caught.value.code == 410
                continue
            found = self.storage.snapshot(POD, revision)
            assert {key: stored.body["value"] for key, stored in found.items()} == state

    @invariant()
    def the_changes_lead_from_any_state_to_the_current_one(self) -> None:
        """Who follows from any version on ends with the same objects."""
        for revision, state in self.states.items():
            if revision < self.compacted:
                continue
            replayed = copy.copy(state)
            for change in self.storage.since(revision):
                if change.qualified != "pods":
                    continue
                if change.type == "DELETED":
                    del replayed[change.key]
                else:
                    assert (change.key in replayed) == (change.type == "MODIFIED")
                    replayed[change.key] = change.new.body["value"]
            assert replayed == self.now


TestStorage = StorageMachine.TestCase
TestStorage.settings = settings(max_examples=30, stateful_step_count=20)


def test_the_history_is_bounded() -> None:
    """Beyond its limit the oldest changes are compacted by themselves."""
    storage = Storage(history=10)
    for number in range(100):
        storage.put(POD, ("a", "x"), body(POD, ("a", "x"), number))
    assert len(storage.since(storage.revision - 5)) == 5
    with pytest.raises(ApiFailure):
        storage.since(1)
