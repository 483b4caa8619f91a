"""The names of the DRA driver: what it publishes, and what claims ask of it.

Each card is one shared device with two capacities, the same on every model, so that a share of a
card needs no knowledge of its size. Without amounts a claim consumes a whole card.
Source of the rules: Kubernetes KEP-5075 (consumable capacity), resource.k8s.io/v1.
"""

from typing import Final

from gpu_fraction.domain import keys

DRIVER: Final = keys.GROUP
"""The driver of slices and claims."""

CORES: Final = DRIVER + "/cores"
"""Capacity: thousandths of a card's compute, 1000 a card."""

MEMORY_PPM: Final = DRIVER + "/memory_ppm"
"""Capacity: millionths of a card's memory, 1,000,000 a card; explicit MiB stay exact."""

CARD_CORES: Final = 1000
CARD_MEMORY_PPM: Final = 1_000_000

FRACTION_CLASS: Final = "fraction." + DRIVER
"""DeviceClass of shares of cards."""

WHOLE_CLASS: Final = "whole." + DRIVER
"""DeviceClass of whole cards."""

MIG_CLASS: Final = "mig." + DRIVER
"""DeviceClass of MIG instances, each a device of one claim. Their capacities are what they have of
the card; a claim's amounts choose an instance that is large enough."""

SLOTS: Final = DRIVER + "/slots"
"""Capacity: containers that may share a card. Claims do not name it: each takes the default, 1."""

MODEL: Final = "model"
"""Attribute: the card's product name, at most 64 characters."""

UUID: Final = "uuid"
"""Attribute: the card's UUID."""

MEMORY_MIB: Final = "memoryMiB"
"""Attribute: the card's memory."""

ISOLATION: Final = "isolation"
"""Attribute: the strongest isolation engine of the card, ``none`` for none."""

ENFORCES_MEMORY: Final = "enforcesMemory"
"""Attribute, always there: whether a share of memory is enforced."""

ENFORCES_COMPUTE: Final = "enforcesCompute"
"""Attribute, always there: whether a share of compute is enforced."""

MIG: Final = "mig"
"""Attribute, always there: whether the device is a MIG instance."""

SIMULATED: Final = "simulated"
"""Attribute, always there: whether the card does not exist (``--simulated-cards``)."""

UNHEALTHY: Final = DRIVER + "/unhealthy"
"""Key of the taint, effect NoSchedule, of a sick card."""

CLAIM: Final = "gpu-fraction-"
"""Start of the names of pod claims and of templates."""

CHARGED: Final = DRIVER + "/charged"
"""Label of the claims of our templates: a quota charges their pod, and so not them. ``exact`` for
what the name of the template says, ``largest`` for the largest entry of its list."""

EXACT, LARGEST = "exact", "largest"

CDI_KIND: Final = DRIVER + "/claim"
"""Kind of the CDI devices; a device's name is ``<claim uid>-<request>``."""

CONFIG_VERSION: Final = DRIVER + "/v1alpha1"
CONFIG_KIND: Final = "ShareConfig"
"""Kind of the opaque configuration of a claim, version ``gpu-fraction.dev/v1alpha1``; its field
``isolation`` is ``required``, ``preferred`` or ``none``."""

EXTENDED_RESOURCES: Final = tuple(
    f"deviceclass.resource.kubernetes.io/{name}"
    for name in (FRACTION_CLASS, WHOLE_CLASS, MIG_CLASS)
)
"""Resources by which a container asks for devices of a class without a claim; one of ours takes
a whole card, or an instance that is charged as one. Source: k8s.io/api core/v1,
ResourceDeviceClassPrefix."""

MAX_DEVICES: Final = 32
"""Devices of one claim. Source: k8s.io/api resource/v1, AllocationResultsMaxSize."""

MAX_ALTERNATIVES: Final = 8
"""Entries of ``firstAvailable``. Source: k8s.io/api resource/v1,
FirstAvailableDeviceRequestMaxSize."""

MAX_EXPRESSION: Final = 10 * 1024
"""Bytes of one CEL expression. Source: k8s.io/api resource/v1, CELSelectorExpressionMaxLength."""
