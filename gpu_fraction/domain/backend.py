"""The interface of a GPU-sharing stack, and what all stacks share."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

from gpu_fraction.domain import frameworks, keys, request_annotation, sizes, units
from gpu_fraction.domain.demand import ZERO, Demand, aggregate, demand_of
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import (
    Container,
    ContainerAt,
    EnvVar,
    Pod,
    Toleration,
    containers,
)
from gpu_fraction.domain.pod_amounts import asking
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.sizes import Amounts
from gpu_fraction.domain.stack import NVIDIA_PRODUCT, About, BackendConfig, StackSetting
from gpu_fraction.domain.traces import Traces


@dataclass(frozen=True)
class Backend(ABC):
    """A GPU-sharing stack: recognises and charges its pods, and writes pods for it.

    Attributes:
        config: The cluster's settings.
        name: The word by which settings and the request annotation name it.
        about: Its description for users.
        scheduler: The scheduler that places its pods; None where any does.
        resources: Prefixes of its resource names.
        takes_over: Resources of another stack that are this one's in a pod that it claims.
        tolerations: For the usual taints of its nodes.
        settings: Those of this stack alone.
        traces: What its components leave in a cluster, besides ``resources`` and ``scheduler``.
        charged_by: Labels, keys of the node selector and variables that ``demand`` reads.
        assignments: Prefixes of annotations and labels by which its components assign cards,
            besides ``assigned``; the author of a pod cannot write them.
        chooses_models: ``render`` keeps a pod to the models that it names.
        chooses_uuids: ``render`` keeps a pod to the cards that it names.
        chooses_placement: ``render`` honours the placement.
        model_label: The node label with the model, for a pod's node selector.
        leaves_total: A container sees the memory of its whole card, whatever its share, so that
            frameworks can be told their part of it (docs/frameworks.md).
        ours: Its components are this project's: pods keep their annotations, and the request
            that the webhook writes, in its own form too.
        reads_our_annotations: It reads ``gpu-fraction`` itself, so its scheduler's pods are left
            to it unless it is a configured backend.
        keeps_model_limits: Its scheduler chooses cards within the quotas' limits on models,
            so a waiting pod counts for no limited model yet.
        needs_no_root: ``isolation: required`` holds only while no container of the pod is
            root, so none can be added later.
    """

    config: BackendConfig = field(default_factory=BackendConfig)
    name: ClassVar[str]
    about: ClassVar[About]
    scheduler: ClassVar[str | None] = None
    resources: ClassVar[tuple[str, ...]] = ()
    takes_over: ClassVar[frozenset[str]] = frozenset()
    tolerations: ClassVar[tuple[Toleration, ...]] = ()
    settings: ClassVar[tuple[StackSetting[Any], ...]] = ()
    traces: ClassVar[Traces] = Traces()
    charged_by: ClassVar[frozenset[str]] = frozenset()
    assignments: ClassVar[tuple[str, ...]] = ()
    chooses_models: ClassVar[bool] = False
    chooses_uuids: ClassVar[bool] = False
    chooses_placement: ClassVar[bool] = False
    model_label: ClassVar[str] = NVIDIA_PRODUCT
    leaves_total: ClassVar[bool] = False
    ours: ClassVar[bool] = False
    reads_our_annotations: ClassVar[bool] = False
    keeps_model_limits: ClassVar[bool] = False
    needs_no_root: ClassVar[bool] = False

    @abstractmethod
    def render(self, request: Request, pod: Pod) -> PodEdit:
        """What the pod must hold for this stack to give it what it asks.

        The edit's problems say what the stack cannot give; then nothing else of it counts.
        """

    def edit(self, request: Request, pod: Pod) -> PodEdit:
        """``render``, and the variables of frameworks where their meaning is known."""
        edit = self.render(request, pod)
        told = self.leaves_total and self.config.framework_env != frameworks.OFF
        if not told or keys.FRAMEWORK_ENV in pod.annotations():
            return edit
        eligible = self.config.card_sizes.eligible_mib(request)
        card_mib = next(iter(eligible)) if len(eligible) == 1 else None
        given = {at.container.name: at.container for at in containers(pod)}
        for part in request.slices:
            milli = part.memory_milli
            if milli is None and card_mib is not None:
                milli = (part.memory_mib or 0) * units.MILLI // card_mib
            if milli is not None:
                container = given[part.container]
                own = frameworks.own(container.env, container.env_from)
                env = frameworks.variables(milli, card_mib, own)
                edit.env[part.container] = {**env, **edit.env.get(part.container, {})}
        return edit

    def claims(self, pod: Pod, gpus: Collection[str]) -> bool:  # noqa: ARG002
        """True for a pod that asks this stack for GPUs, whoever wrote it.

        Args:
            pod: The pod.
            gpus: The resources of any stack that it names.
        """
        return any(name.startswith(self.resources) for name in gpus)

    def ask(self, container: Container, pod: Pod) -> Slice | None:  # noqa: ARG002
        """What one container asks of this stack, whoever wrote it; None for nothing.

        Amounts are those that the stack hands out, so what it cannot divide counts as the whole.
        """
        return None

    def asks(self, container: Container, pod: Pod, *, up: bool = True) -> Iterable[Slice]:  # noqa: ARG002
        """The same for each kind of device; a stack of several kinds overrides this instead.

        Args:
            container: The container.
            pod: Its pod.
            up: Amounts that are no whole thousandths are rounded up, as they are charged; else
                they are what a user would ask to get the same.
        """
        found = self.ask(container, pod)
        return () if found is None else (found,)

    def own_claims(self, pod: Pod) -> Collection[str]:  # noqa: ARG002
        """The pod's claims of devices that are its form, by their names in the pod."""
        return ()

    def demand(self, pod: Pod) -> Demand:
        """What a pod that it claims costs."""

        def of(container: Container) -> Demand:
            # Skip containers without resources early: a pod may have tens of thousands.
            parts = self.asks(container, pod) if container.resources else ()
            return sum(map(demand_of, parts), ZERO)

        return aggregate(pod, of)

    def read(self, pod: Pod) -> Request | None:
        """The request of a pod that was written for this stack; None where it asks nothing.

        A stack that can choose cards overrides this to read the choices back.
        """
        found = [
            part
            for at in containers(pod)
            if at.kind != "ephemeralContainers"
            for part in islice(self.asks(at.container, pod, up=False), 1)
        ]
        return Request(tuple(found)) if found else None

    def cards(self, annotations: Mapping[str, str]) -> dict[str, tuple[str, int]]:  # noqa: ARG002
        """Model and MiB, by UUID, of the cards that its components register on a Node.

        Args:
            annotations: The Node's.
        """
        return {}

    def sets(self, pod: Pod, at: ContainerAt, variable: EnvVar) -> bool:  # noqa: ARG002
        """True for a variable by which its own components tell a container its cards.

        Tenants write such pods too, so this is true only for variables that those components
        overwrite.
        """
        return False

    def start(self, request: Request, pod: Pod) -> PodEdit:
        """An edit with the request annotation, the scheduler, the class and the tolerations.

        It has a problem for each wish that the stack cannot honour, and a warning for a placement
        that it ignores and for each fact about it that is not verified.
        """
        edit = PodEdit(
            annotations={keys.REQUEST: request_annotation.render(request, self.name)},
            scheduler_name=self.scheduler,
            runtime_class_name=self.config.runtime_class,
            tolerations=self.tolerations,
        )
        self._choices(request, edit)
        if request.isolation == "required" and self.about.memory_isolation == "none":
            edit.refuse(
                keys.ISOLATION,
                f'"required" cannot be honoured: {self.about.title} does not isolate memory; '
                "allowed: preferred, none",
            )
        if not self.chooses_placement and keys.PLACEMENT in pod.annotations():
            edit.warn(f"{keys.PLACEMENT} is ignored: {self.about.title} chooses the cards itself")
        for fact in self.about.unverified:
            edit.warn(f"not verified for the backend {self.name}: {fact}")
        return edit

    def _choices(self, request: Request, edit: PodEdit) -> None:
        for key, wish, honoured in (
            (keys.MODEL, request.models or request.not_models, self.chooses_models),
            (keys.UUID, request.uuids, self.chooses_uuids),
        ):
            if wish and not honoured:
                edit.refuse(
                    key,
                    f"cannot be honoured: {self.about.title} cannot choose among cards; "
                    f"use a nodeSelector on the label {self.model_label}",
                )

    def needs_whole(self, edit: PodEdit, part: Slice, pod: Pod) -> None:
        """Refuse a part of a card, for a stack that has whole cards only."""
        if part.whole:
            return
        edit.refuse(
            asking(part, pod),
            f"container {part.container} asks for a part of a GPU, but this cluster gives whole "
            f'GPUs only (backend {self.name}); allowed: {keys.FRACTION} "1", "2", … without '
            f"{keys.MEMORY} and {keys.CORES}",
        )

    def parts(self, request: Request, edit: PodEdit) -> list[tuple[Slice, Amounts]]:
        """Each slice with its amounts; the edit's warnings say how they were worked out.

        A container that asks for more memory than the largest eligible card has is a problem.
        """
        eligible = self.config.card_sizes.eligible_mib(request)
        largest = max(eligible, default=None)
        parts = []
        for part in request.slices:
            amounts = sizes.resolve(part, eligible)
            if largest is not None and (amounts.memory_mib or 0) > largest:
                edit.refuse(
                    keys.MEMORY,
                    f"container {part.container} requests {amounts.memory_mib} MiB on one "
                    f"GPU, but the largest eligible GPU has {largest} MiB",
                )
            if (warning := sizes.describe(part, amounts, eligible)) is not None:
                edit.warn(warning)
            parts.append((part, amounts))
        return parts

    def give(
        self, edit: PodEdit, part: Slice, amounts: Amounts, resources: Mapping[str, int | str]
    ) -> None:
        """One container: its resources, and the variables that tell it its share.

        Args:
            edit: The pod's.
            part: The container's request.
            amounts: The same in integers.
            resources: Amount by resource: a count, or a quantity as text.
        """
        edit.resources[part.container] = {
            name: units.format_count(amount) if isinstance(amount, int) else amount
            for name, amount in resources.items()
        }
        env = {}
        if amounts.core_milli is not None:
            env[keys.SHARE_VARIABLE] = units.format_milli(amounts.core_milli)
        if amounts.memory_mib is not None:
            env[keys.MEMORY_VARIABLE] = str(amounts.memory_mib)
        present = edit.env.get(part.container, {})
        edit.env[part.container] = {**env, **self.config.env, **present}

    def percent(self, edit: PodEdit, part: Slice, milli: int, what: str, step: int = 1) -> int:
        """Thousandths of a card as percents, rounded up to a step, with a warning where they are.

        Args:
            edit: The pod's.
            part: The container's request.
            milli: What it asks, 1 to 1000.
            what: What it is of, for the warning.
            step: Percents of one step.
        """
        percent = step * units.ceil_div(milli, 10 * step)
        if percent * 10 != milli:
            steps = "whole percents" if step == 1 else f"steps of {step}%"
            edit.warn(
                f"container {part.container}: {units.format_percent(milli)} of {what} is rounded "
                f"up to {percent}%, {self.about.title} knows {steps}"
            )
        return percent
