"""KAI-Scheduler: one share of a card, or of several, for one container of a pod, by annotations.

Its annotations are ours, in a narrower spelling. Its webhook gives that container a variable that
refers to a ConfigMap, whose name is an annotation of the pod and the container's place; its binder
fills the ConfigMap. Source: kai-scheduler/KAI-Scheduler pkg/admission/webhook/v1alpha2/gpusharing,
pkg/binder/common (gpusharingconfigmap, env_vars), api/utilities/resources
(``GetFractionContainerRef``) at d5bc503a (2026-08-07); what it did on a real API server is in
docs/peers.md.
"""

from collections.abc import Callable, Collection
from typing import Final, TypeVar

import msgspec

from gpu_fraction.domain import keys, units
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.demand import Demand, aggregate, demand_of
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container, ContainerAt, EnvVar, Metadata, Pod
from gpu_fraction.domain.pod_amounts import asked_for, asking, whole_cards
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.stack import NVIDIA_TAINT, About, StackSetting
from gpu_fraction.domain.traces import Traces

T = TypeVar("T")

CONFIG_MAP: Final = "runai/shared-gpu-configmap"
"""Annotation with the first part of the ConfigMaps' names."""

QUEUE_LABEL: Final = "kai.scheduler/queue"
WHOLE: Final = "nvidia.com/gpu"
VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES"
NO_CARD: Final = "void"
"""Gives no card (NVIDIA container toolkit, "GPU enumeration"), in case KAI's webhook does not see
the pod. That webhook replaces the variable (pkg/binder/common/env_vars.go)."""

SMALLEST_MILLI: Final = 10
"""KAI tells containers hundredths, and its HAMi-core mode sets no limit for 0.00."""

_MIB_STEP: Final = 100
"""KAI rounds the memory of cards down to hundreds of MiB (pkg/scheduler/api/node_info)."""

_KEYS: Final = (VISIBLE, "RUNAI-VISIBLE-DEVICES")
"""The ConfigMap's key with the cards; the second before KAI 0.7.4 (its CHANGELOG)."""

_QUEUE: Final = StackSetting(
    "kai_queue", "", "queue of pods without the label kai.scheduler/queue (backend kai)"
)


class Kai(Backend):
    """Shares by the annotations that KAI takes; whole cards by ``nvidia.com/gpu``."""

    name = "kai"
    about = About(
        title="KAI-Scheduler",
        memory="share of a GPU in hundredths, or MiB",
        compute="none of its own; it goes with the memory",
        cards="the same share of each",
        memory_isolation="none",
        compute_isolation="none",
        source="kai-scheduler/KAI-Scheduler at d5bc503a (2026-08-07), run on Kubernetes 1.37.2",
    )
    scheduler = "kai-scheduler"
    tolerations = (NVIDIA_TAINT,)
    settings = (_QUEUE,)
    # deployments/kai-scheduler/crds; the cards are those of NVIDIA's device plugin.
    traces = Traces(crds=("bindrequests.scheduling.run.ai", "*.kai.scheduler"), owns=(WHOLE,))
    # Its binder writes them (pkg/common/constants, pkg/binder/binding).
    assignments = (
        "runai-gpu-group",
        "received-resource-type",
        "kai.scheduler/numa-placement-",
    )
    reads_our_annotations = True

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """The annotations in KAI's spelling, the container always named."""
        edit = self.start(request, pod)
        shares = [part for part in request.slices if not part.whole]
        if shares and len(request.slices) > 1:
            edit.refuse(
                asking(request.slices[-1], pod),
                "cannot be honoured: KAI-Scheduler gives a pod one share of a GPU, or whole GPUs; "
                "allowed: a share for one container, or whole GPUs for several",
            )
        queue = self.config.of(_QUEUE)
        if queue and QUEUE_LABEL not in (pod.metadata.labels or {}):
            edit.labels[QUEUE_LABEL] = queue
        for part, amounts in self.parts(request, edit):
            if part.whole:
                _forget_share(edit)
                edit.rewritten[keys.CONTAINER_PREFIX + part.container] = str(part.cards)
                self.give(edit, part, amounts, {WHOLE: part.cards})
            else:
                self._share(edit, part, pod, self.config.card_sizes.eligible_mib(request))
                edit.env[part.container] = {VISIBLE: NO_CARD}
                self.give(edit, part, amounts, {})
        return edit

    def _share(self, edit: PodEdit, part: Slice, pod: Pod, eligible_mib: Collection[int]) -> None:
        if part.core_milli not in (None, part.memory_milli):
            edit.refuse(
                keys.MEMORY if part.memory_mib else keys.CORES,
                "cannot be honoured: KAI-Scheduler gives memory only, the compute goes with it; "
                f"allowed: {keys.FRACTION} or {keys.MEMORY}, without {keys.CORES}",
            )
        if (part.memory_milli or units.MILLI) < SMALLEST_MILLI:
            edit.refuse(
                asking(part, pod),
                "is too small for KAI-Scheduler, which tells a container hundredths of a GPU; "
                f"allowed: 0.01 or more, or {keys.MEMORY}",
            )
        largest = max(eligible_mib, default=0)
        counted = largest - largest % _MIB_STEP
        if counted < (part.memory_mib or 0) <= largest:
            edit.refuse(
                keys.MEMORY,
                f"is {part.memory_mib} MiB, but KAI-Scheduler counts the largest GPU as "
                f"{counted} MiB; allowed: at most {counted}Mi",
            )
        milli = part.memory_milli or 0
        if milli % 10:
            # As Go's "%.2f" rounds: 0.335 is 0.34 and 0.345 is 0.34.
            edit.warn(
                f"container {part.container}: KAI-Scheduler keeps {units.format_milli(milli)} of "
                f"a GPU for it and tells it {milli / units.MILLI:.2f}"
            )
        _forget_share(edit)
        edit.rewritten[keys.CONTAINER_PREFIX + part.container] = None
        edit.rewritten[keys.CONTAINER_NAME] = part.container
        if part.memory_mib:
            edit.rewritten[keys.MEMORY] = str(part.memory_mib)
        else:
            edit.rewritten[keys.FRACTION] = units.format_milli(milli)
        if part.cards > 1:
            edit.rewritten[keys.NUM_DEVICES] = str(part.cards)

    def claims(self, pod: Pod, gpus: Collection[str]) -> bool:  # noqa: ARG002
        """True for a share that KAI places."""
        return _shares(pod)

    def ask(self, container: Container, pod: Pod) -> Slice | None:
        """The pod's share, for the container that has it; what cannot be read is a whole card.

        A pod without a share has whole cards; in those that it schedules, KAI gives nothing else.
        """
        if not _shares(pod):
            return whole_cards(container, (WHOLE,))
        annotations = pod.annotations()
        first = pod.spec.containers[0].name if pod.spec.containers else ""
        if container.name != annotations.get(keys.CONTAINER_NAME, first):
            return None
        cards = _number(units.parse_count, annotations.get(keys.NUM_DEVICES)) or 1
        memory = _number(units.parse_memory_mib, annotations.get(keys.MEMORY))
        if memory:
            mib = min(memory[0], units.MAX_AMOUNT)
            return asked_for(container, cards=cards, core_milli=None, memory_mib=mib)
        milli = _number(units.parse_share_milli, annotations.get(keys.FRACTION)) or units.MILLI
        return asked_for(container, cards=cards, core_milli=milli, memory_milli=milli)

    def demand(self, pod: Pod) -> Demand:
        """Its containers have no resource; a share of one that is not there is the first's."""
        found = aggregate(pod, lambda container: demand_of(self.ask(container, pod)))
        if found or keys.CONTAINER_NAME not in pod.annotations():
            return found
        given = {
            key: text for key, text in pod.annotations().items() if key != keys.CONTAINER_NAME
        }
        return self.demand(msgspec.structs.replace(pod, metadata=Metadata(given)))

    def sets(self, pod: Pod, at: ContainerAt, variable: EnvVar) -> bool:
        """True for a variable by which KAI tells the container its cards.

        Only what KAI's webhook overwrites, and only in a pod that KAI has yet to place: in other
        pods the author controls the ConfigMap and can name any card.
        """
        if variable.value == NO_CARD:
            return True
        part = pod.annotations().get(CONFIG_MAP)
        source = variable.value_from
        if part is None or source is None or pod.spec.node_name or not _gives(pod, at):
            return False
        place = f"i{at.index}" if at.kind == "initContainers" else str(at.index)
        told = source.config_map_key_ref
        return told is not None and told.name == f"{part}-{place}" and told.key in _KEYS


STACK = Kai


def _number(read: Callable[[str], T], text: str | None) -> T | None:
    try:
        return None if text is None else read(text)
    except units.UnitError:
        return None


def _forget_share(edit: PodEdit) -> None:
    """KAI refuses ``gpu-fraction`` of 1 or more, and one of its annotations beside whole cards."""
    for key in (keys.FRACTION, keys.MEMORY, keys.CORES, keys.NUM_DEVICES, keys.CONTAINER_NAME):
        edit.rewritten.setdefault(key, None)


def _gives(pod: Pod, at: ContainerAt) -> bool:
    """True for the container that every version of KAI gives a share of a card.

    Newer ones know ``nvidia.com/container.<name>.*`` too. To an older one such a pod asks for
    nothing, so that it would place the pod and leave the variable as its author wrote it.
    """
    annotations = pod.annotations()
    if keys.FRACTION not in annotations and keys.MEMORY not in annotations:
        return False
    named = annotations.get(keys.CONTAINER_NAME)
    if named is None:
        return at.kind == "containers" and at.index == 0
    return at.container.name == named


def _shares(pod: Pod) -> bool:
    annotations = pod.annotations()
    return pod.spec.scheduler_name == Kai.scheduler and (
        keys.FRACTION in annotations or keys.MEMORY in annotations
    )
