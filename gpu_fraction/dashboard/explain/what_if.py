"""What would happen to a pod with other annotations: webhook, quota and cards, as they are now."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import jsonpatch

from gpu_fraction.dashboard.explain import nodes, placing, waiting
from gpu_fraction.dashboard.explain.causes import Finding
from gpu_fraction.dashboard.explain.facts import Facts, as_pod
from gpu_fraction.dashboard.explain.report import asked
from gpu_fraction.dashboard.snapshot import Snapshot
from gpu_fraction.domain import conversion, keys, plain_form
from gpu_fraction.domain.backends import STACKS
from gpu_fraction.domain.request import Bounds, Refused
from gpu_fraction.domain.units import format_milli

Raw = Mapping[str, Any]
Changes = Mapping[str, str | None]
"""New annotations; None removes one."""


@dataclass(frozen=True, slots=True)
class QuotaAnswer:
    """What the quotas of the namespace say.

    Attributes:
        refusals: Why they refuse; empty where the pod fits, or no quota counts it.
        remarks: What they would warn of.
        known: False where quotas could not be read, or are not counted yet.
    """

    refusals: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    known: bool = True


CheckQuota = Callable[[Raw, Raw | None], QuotaAnswer]
"""Judges a new pod in place of an old one; None for no old one."""

_PLACING: Final = (waiting.not_offered, placing.no_room)


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The answer.

    Attributes:
        annotations: The pod's with the changes.
        problems: Why the webhook refuses it; then nothing else is known.
        warnings: What the webhook says beside.
        gets: What each container gets, one line; empty where it asks for nothing.
        quota: What the quotas say.
        placed: Where it would start now; empty for nowhere, or not known.
        findings: Why it would wait.
        share_milli: The largest share of each card that would start now, 0 to 1000.
        share_node: Its node; empty for none.
        sure: False where the cards of its stack are not known here.
        whole: False where some pods or claims could not be read, so that more may be taken.
    """

    annotations: Mapping[str, str]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    gets: str = ""
    quota: QuotaAnswer = field(default_factory=QuotaAnswer)
    placed: str = ""
    findings: tuple[Finding, ...] = ()
    share_milli: int = 0
    share_node: str = ""
    sure: bool = True
    whole: bool = True

    @property
    def starts(self) -> bool:
        """Whether nothing known keeps it from starting now."""
        refused = self.problems or self.quota.refusals or self.findings
        return not refused and bool(self.placed or not self.sure)

    def record(self) -> dict[str, Any]:
        """For programs."""
        return {
            "annotations": dict(self.annotations),
            "starts": self.starts,
            "known": self.sure and self.whole and self.quota.known,
            "webhook": {
                "allowed": not self.problems,
                "problems": list(self.problems),
                "warnings": list(self.warnings),
                "gets": self.gets,
            },
            "quota": {"refusals": list(self.quota.refusals), "warnings": list(self.quota.remarks)},
            "placed": self.placed,
            "causes": [{"cause": one.cause.name, "says": one.says} for one in self.findings],
            "largestShareMilli": self.share_milli,
            "largestShareNode": self.share_node,
        }


def what_if(facts: Facts, changes: Changes, check: CheckQuota) -> WhatIf:
    """What would happen to the pod with these changes, if it were created again now.

    Args:
        facts: About the pod; its own slices and its own part of the quotas count as free.
        changes: The new annotations.
        check: Judges the quotas.
    """
    plain = _changed(as_written(facts), changes)
    annotations = (plain.get("metadata") or {}).get("annotations") or {}
    try:
        verdict = facts.webhook.admit(as_pod(plain).domain())
    except Refused as e:
        return WhatIf(annotations, tuple(map(str, e.problems)))
    raw = _patched(plain, verdict.operations)
    quota = check(raw, facts.raw if facts.exists else None)
    again = replace(facts, raw=raw, exists=True, events=(), snapshot=_without(facts))
    findings = tuple(one for rule in _PLACING for one in rule(again))
    placed, share_milli, share_node = "", 0, ""
    if again.asks:
        judged = placing.judged(again)
        room = next((one for one in judged if one.room), None)
        if room is not None and room.placed is not None:
            placed = nodes.card_names(room.placed, room.node)
        share_milli, where = nodes.largest_share(judged, again.asks)
        share_node = where.node.name if where else ""
    return WhatIf(
        annotations,
        warnings=verdict.warnings,
        gets=asked(verdict.request) if verdict.request else "",
        quota=quota,
        placed=placed,
        findings=findings,
        share_milli=share_milli,
        share_node=share_node,
        sure=bool(again.asks),
        whole=facts.cluster.pods_known,
    )


def as_written(facts: Facts) -> Raw:
    """The pod as its author wrote it, as far as it still shows; without a node and a status."""
    raw = copy.deepcopy(dict(facts.raw))
    (raw.get("spec") or {}).pop("nodeName", None)
    raw.pop("status", None)
    if not facts.rewritten:
        return raw
    pod = as_pod(raw).domain()
    stacks = {**STACKS, **facts.webhook.settings.backends}
    try:
        found = conversion.find(pod, stacks, Bounds())
    except Refused:
        found = None
    if found is not None:
        step = plain_form.plain(pod, found, stacks, keep_annotations=True)
        raw = dict(_patched(raw, step.operations))
    for key in keys.SYSTEM_KEYS:
        raw["metadata"].get("annotations", {}).pop(key, None)
    return raw


def _patched(raw: Raw, operations: Sequence[Mapping[str, Any]]) -> Raw:
    try:
        return dict(jsonpatch.apply_patch(dict(raw), [*operations]))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
        return raw


def _changed(raw: Raw, changes: Changes) -> Raw:
    meta = dict(raw.get("metadata") or {})
    given = {**(meta.get("annotations") or {}), **changes}
    meta["annotations"] = {key: text for key, text in given.items() if text is not None}
    return {**raw, "metadata": meta}


def _without(facts: Facts) -> Snapshot:
    """The cluster as if the pod were gone."""
    uid = facts.pod.pod.metadata.uid
    found = facts.snapshot
    if not uid:
        return found
    pods = tuple(one for one in found.pods.items if one.metadata.uid != uid)
    claims = tuple(
        one
        for one in found.claims.items
        if uid not in {holder.uid for holder in one.status.reserved_for or ()}
    )
    return replace(
        found, pods=replace(found.pods, items=pods), claims=replace(found.claims, items=claims)
    )


def largest(answer: WhatIf) -> str:
    """The largest share that would start now, for people; empty where it is not known."""
    if not answer.share_milli:
        return ""
    return f"{format_milli(answer.share_milli)} (node {answer.share_node})"
