"""AMD's device plugin: whole cards, or partitions of a card.

Source: ROCm/k8s-device-plugin docs/user-guide/configuration.md at af51ed1; the modes, AMD SMI "GPU
partitioning" (docs 10.2.0, 2026): ``cpx`` gives each compute die of a card by itself, 8 on MI300X
and 6 on MI300A.
"""

from collections.abc import Iterable
from typing import Final

from gpu_fraction.domain import units
from gpu_fraction.domain.backend import Backend
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.equal_parts import EqualParts
from gpu_fraction.domain.pod import Container, Pod, Toleration
from gpu_fraction.domain.pod_amounts import amount_of, asked_for, asking
from gpu_fraction.domain.request import Request, Slice
from gpu_fraction.domain.stack import About, StackSetting, flag

GPU: Final = "amd.com/gpu"
_DOMAIN: Final = "amd.com/"
_PARTS: Final = {"spx": 1, "dpx": 2, "tpx": 3, "qpx": 4, "cpx": 8}
_MODES: Final = tuple(f"{_DOMAIN}{mode}_" for mode in _PARTS)

_PARTITION: Final = StackSetting(
    "amd_partition",
    "",
    "partition to give for shares, as the plugin's naming strategy mixed names it, such as "
    "cpx_nps4 (backend amd)",
    tuple(f"{mode}_nps{domains}" for mode in _PARTS for domains in (1, 2, 4, 8)),
    charged=True,
)
_COUNT: Final = StackSetting(
    "amd_partitions",
    0,
    "partitions of each GPU; by default those of an MI300X, for cpx 8 (backend amd)",
    range(1, 65),
    charged=True,
)


class Amd(Backend):
    """Whole cards, or one partition that holds a share."""

    name = "amd"
    about = About(
        title="AMD device plugin",
        memory="whole GPUs, or one of N partitions of a GPU",
        compute="whole GPUs, or one of N partitions of a GPU",
        cards="a count; partitions can be of one GPU",
        memory_isolation="some nodes",
        compute_isolation="hard",
        source="ROCm/k8s-device-plugin at af51ed1; AMD SMI GPU partitioning (2026)",
        unverified=("no pod has run with the plugin",),
    )
    resources = (GPU, *_MODES)
    tolerations = (Toleration(GPU, "Exists", effect="NoSchedule"),)
    settings = (_PARTITION, _COUNT)
    model_label = "amd.com/gpu.product-name"

    def render(self, request: Request, pod: Pod) -> PodEdit:
        """A count of cards, or of partitions."""
        edit = self.start(request, pod)
        eligible = self.config.card_sizes.eligible_mib(request)
        partition = self._partition
        for part, amounts in self.parts(request, edit):
            resources = {GPU: part.cards}
            if part.whole and partition is not None:
                edit.warn(f"{GPU} is a whole GPU only on nodes whose GPUs are not divided")
            elif not part.whole and partition is None:
                self.needs_whole(edit, part, pod)
            elif not part.whole and partition is not None:
                resources = partition.take(edit, asking(part, pod), part, eligible)
            self.give(edit, part, amounts, resources)
        return edit

    @property
    def _partition(self) -> EqualParts | None:
        partition = self.config.of(_PARTITION)
        if not partition:
            return None
        count = self.config.of(_COUNT) or _PARTS[partition.partition("_")[0]]
        return EqualParts(_DOMAIN + partition, count, flag(_COUNT), "any", "a whole GPU")

    def asks(self, container: Container, pod: Pod, *, up: bool = True) -> Iterable[Slice]:  # noqa: ARG002
        """Partitions of the configured kind as their part; every other device as a whole card.

        By the plugin's default all are called ``amd.com/gpu``, cards and partitions alike.
        """
        partition = self._partition
        known = "" if partition is None else partition.resource
        names = [n for n in container.resource_names() if n == GPU or n.startswith(_MODES)]
        cards = sum(amount_of(container.resources, name) for name in names if name != known)
        parts = [asked_for(container, cards=cards, core_milli=units.MILLI)] if cards else []
        if partition is not None and (part := partition.ask(container, up=up)) is not None:
            parts.append(part)
        return parts


STACK = Amd
