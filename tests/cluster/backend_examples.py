"""The examples of docs/backends/NAME.yaml, for a real API server."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jsonpatch
import msgspec
from ruamel.yaml import YAML

from gpu_fraction.domain.backends import BACKENDS, SETTINGS
from gpu_fraction.domain.demand import Demand
from gpu_fraction.quota.charge import charge
from gpu_fraction.quota.cluster_cards import ClusterCards
from gpu_fraction.quota.pods import PodRecord, facts_of
from gpu_fraction.settings.rewrite import RewriteSettings
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import decode, encode
from tests.builders.pods import Raw, container, pod
from tests.support.reviews import body, patch_of, review, rewriting

FOLDER = Path(__file__).parents[2] / "docs" / "backends"
OWN = {one.name for one in SETTINGS}
"""Settings of single stacks."""


@dataclass(frozen=True)
class Example:
    """One example of a page.

    Attributes:
        page: The backend whose page it is on.
        part: ``annotated``, or ``by_hand`` for a pod that asks the stack itself.
        of: As the page has it.
    """

    page: str
    part: str
    of: Any

    @property
    def backend(self) -> str:
        """That of the pod's namespace."""
        return str(self.of.get("settings", {}).get("backend", self.page))

    @property
    def shared(self) -> dict[str, str]:
        """Settings of every stack."""
        given = self.of.get("settings", {})
        return {name: value for name, value in given.items() if name not in {*OWN, "backend"}}

    @property
    def own(self) -> dict[str, str | None]:
        """Settings of single stacks; None is the default."""
        made: dict[str, str | None] = dict.fromkeys(
            one.name for one in BACKENDS[self.page].settings
        )
        given = self.of.get("settings", {})
        return made | {name: value for name, value in given.items() if name in OWN}

    @property
    def refused(self) -> str:
        """The message, if it is refused."""
        return str(self.of.get("refused", ""))

    def pod(self, name: str) -> Raw:
        """As its author writes it."""
        env = {"env": self.of["env"]} if "env" in self.of else {}
        asked = (self.resources or None) if self.part == "by_hand" else None
        made = container(resources=asked, **env)
        raw = pod(self.of.get("annotations"), made, **self.of.get("given", {}))
        metadata = {key: self.of[key] for key in ("annotations", "labels") if key in self.of}
        return {**raw, "metadata": {"name": name, **metadata}}

    @property
    def resources(self) -> dict[str, str]:
        """Of its container, as stored."""
        return {name: str(amount) for name, amount in self.of["resources"].items()}

    @property
    def shown(self) -> Raw:
        """What the page shows of the stored pod."""
        found = dict.fromkeys(("limits", "requests"), self.resources)
        made = {"resources": found} if self.resources else {}
        spec = {"containers": [made], **self.of.get("spec", {})}
        return {"spec": spec, "metadata": self.of.get("metadata", {})}

    @property
    def settings(self) -> RewriteSettings:
        """As if the cluster had this backend alone."""
        return rewriting(**{"backend": self.page, **self.of.get("settings", {})})

    def rewritten(self, name: str) -> Raw:
        """What ``/mutate`` makes of it."""
        raw = self.pod(name)
        answer = Decider(self.settings).mutate(decode(body(review(raw))))
        response = json.loads(encode("u", answer))["response"]
        made: Raw = jsonpatch.JsonPatch(patch_of(response)).apply(copy.deepcopy(raw))
        return made

    def charge(self, stored: Raw) -> Mapping[str, int]:
        """What a quota takes for the pod, if it costs what the page says."""
        cluster = ClusterCards(self.settings.stacks.costs.config)
        record = msgspec.convert(stored, PodRecord)
        facts = facts_of(record, cluster.stacks)
        if "costs" in self.of:
            facts = replace(facts, demand=Demand(**self.of["costs"]))
        return charge(facts.on(cluster.cards_for(record, facts))).amounts


@dataclass
class Group:
    """Examples that one webhook can serve, because their settings do not contradict.

    Attributes:
        shared: Settings of every stack.
        own: Settings of single stacks; None is the default.
        examples: At least one.
    """

    shared: dict[str, str]
    own: dict[str, str | None] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)

    def takes(self, example: Example) -> bool:
        """Add the example if its settings allow."""
        own = example.own
        if example.shared != self.shared or any(
            self.own.get(name, value) != value for name, value in own.items()
        ):
            return False
        self.own |= own
        self.examples.append(example)
        return True

    @property
    def first(self) -> dict[str, Example]:
        """The first annotated example of each backend that is not refused."""
        found = (one for one in reversed(self.examples) if one.part == "annotated")
        return {one.backend: one for one in found if not one.refused}

    @property
    def settings(self) -> dict[str, str]:
        """For the webhook."""
        return {**self.shared, **{name: v for name, v in self.own.items() if v is not None}}


def _groups() -> list[Group]:
    found: list[Group] = []
    for name in BACKENDS:
        page = YAML(typ="safe").load(FOLDER / f"{name}.yaml")
        for part in ("annotated", "by_hand"):
            for of in page[part]:
                example = Example(name, part, of)
                if not any(group.takes(example) for group in found):
                    found.append(Group(example.shared))
                    assert found[-1].takes(example)
    return found


GROUPS = _groups()
"""As few as the settings of the examples allow: the webhook starts once for each."""

RUNTIME_CLASSES = {"nvidia"} | {
    one.of.get("spec", {}).get("runtimeClassName", "nvidia")
    for group in GROUPS
    for one in group.examples
}
