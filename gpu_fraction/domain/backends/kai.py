"""How KAI-Scheduler tells a container the cards that it chose.

Its webhook gives one container of a pod a variable that refers to a ConfigMap, whose name is
an annotation of the pod and the container's place; its binder fills the ConfigMap. Source:
kai-scheduler/KAI-Scheduler pkg/admission/webhook/v1alpha2/gpusharing,
pkg/binder/common/gpusharingconfigmap, api/utilities/resources (``GetFractionContainerRef``).
"""

from typing import Final

from gpu_fraction.domain import keys
from gpu_fraction.domain.backend import Stack
from gpu_fraction.domain.pod import ContainerAt, EnvVar, Pod

CONFIG_MAP: Final = "runai/shared-gpu-configmap"
"""Annotation with the first part of the ConfigMaps' names."""

_KEYS: Final = ("NVIDIA_VISIBLE_DEVICES", "RUNAI-VISIBLE-DEVICES")
"""The ConfigMap's key with the cards; the second before KAI 0.7.4 (its CHANGELOG)."""


class Kai(Stack):
    """KAI's pods are recognised; no quota counts them, and no request is rendered for KAI."""

    name = "kai"
    scheduler = "kai-scheduler"
    reads_our_annotations = True

    def sets(self, pod: Pod, at: ContainerAt, variable: EnvVar) -> bool:
        """True for a variable by which KAI tells the container its cards.

        Only what KAI's webhook overwrites, and only in a pod that KAI has yet to place: in other
        pods the author controls the ConfigMap and can name any card.
        """
        part = pod.annotations().get(CONFIG_MAP)
        source = variable.value_from
        if part is None or source is None or pod.spec.node_name or not _gives(pod, at):
            return False
        place = f"i{at.index}" if at.kind == "initContainers" else str(at.index)
        told = source.config_map_key_ref
        return told is not None and told.name == f"{part}-{place}" and told.key in _KEYS


STACK = Kai


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
