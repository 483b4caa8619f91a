"""The rights that the doctor asks about are those of deploy/."""

from itertools import product
from typing import Any

import pytest
from ruamel.yaml import YAML

from gpu_fraction.dashboard.doctor.rights import Needed, needed
from tests.builders.installation import DEPLOY


def granted() -> set[tuple[str, str, str, str]]:
    """Component, verb, group and resource of every rule without names, by bindings."""
    documents: list[Any] = []
    for file in (*DEPLOY.glob("*/*.yaml"),):
        documents += [
            d
            for d in YAML(typ="safe", pure=True).load_all(file.read_text())
            if isinstance(d, dict) and "kind" in d
        ]
    rules = {
        (one["kind"], one["metadata"]["name"]): [
            r for r in one["rules"] if "resourceNames" not in r
        ]
        for one in documents
        if one["kind"] in {"Role", "ClusterRole"} and "rules" in one
    }
    found = set()
    for one in documents:
        if one["kind"] not in {"RoleBinding", "ClusterRoleBinding"}:
            continue
        role = one["roleRef"]
        for subject, rule in product(one["subjects"], rules.get((role["kind"], role["name"]), ())):
            component = subject["name"].removeprefix("gpu-fraction-")
            found |= {
                (component, *of)
                for of in product(rule["verbs"], rule["apiGroups"], rule["resources"])
            }
    return found


GRANTED = granted()


@pytest.mark.parametrize("one", [*needed()], ids=lambda n: f"{n.component} {n.verb} {n.qualified}")
def test_a_right_is_granted_by_the_manifests(one: Needed) -> None:
    """Otherwise a healthy installation would fail."""
    assert (one.component, one.verb, one.group, one.resource) in GRANTED
