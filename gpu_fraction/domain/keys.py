"""Every annotation, label and resource name of the product.

Users and other systems depend on the names, so a change here is a breaking change. The first
five user keys have the names and meaning of NVIDIA KAI-Scheduler
(pkg/common/constants/constants.go of that project).
"""

from typing import Final

GROUP: Final = "gpu-fraction.dev"
PREFIX: Final = GROUP + "/"

# Written by users, on pods or pod templates.
FRACTION: Final = "gpu-fraction"
MEMORY: Final = "gpu-memory"
CORES: Final = "gpu-cores"
NUM_DEVICES: Final = "gpu-fraction-num-devices"
CONTAINER_NAME: Final = "gpu-fraction-container-name"
CONTAINER_PREFIX: Final = PREFIX + "container."
MODEL: Final = PREFIX + "gpu-model"
UUID: Final = PREFIX + "gpu-uuid"
PLACEMENT: Final = PREFIX + "placement"
ISOLATION: Final = PREFIX + "isolation"
FRAMEWORK_ENV: Final = PREFIX + "framework-env"
BACKEND: Final = PREFIX + "backend"

USER_KEYS: Final = (
    FRACTION,
    MEMORY,
    CORES,
    NUM_DEVICES,
    CONTAINER_NAME,
    MODEL,
    UUID,
    PLACEMENT,
    ISOLATION,
    FRAMEWORK_ENV,
    BACKEND,
)

# Written by gpu-fraction; other writers are refused.
REQUEST: Final = PREFIX + "request"
ASSIGNED: Final = PREFIX + "assigned"
SYSTEM_KEYS: Final = (REQUEST, ASSIGNED)

# On owners of pods, written by the controller to wake them once a quota has room.
QUOTA_FREED: Final = PREFIX + "quota-freed"

# On Nodes, written by the node daemon.
INVENTORY: Final = PREFIX + "inventory"
LABEL_MODEL: Final = PREFIX + "gpu.model"
LABEL_COUNT: Final = PREFIX + "gpu.count"
LABEL_MEMORY_MIB: Final = PREFIX + "gpu.memory-mib"
LABEL_ISOLATION: Final = PREFIX + "gpu.isolation"
LABEL_SIMULATED: Final = PREFIX + "simulated"

# On the Leases in which replicas of the webhook report their certificates.
SERVING_ISSUER: Final = PREFIX + "serving-issuer"
SERVING_NOT_AFTER: Final = PREFIX + "serving-not-after"

# On Namespaces, written by cluster administrators; the name of the pods' annotation.
LABEL_BACKEND: Final = BACKEND

# Extended resources; the name carries the unit.
SLOT: Final = PREFIX + "slot"
CORE_MILLI: Final = PREFIX + "core-milli"
MEMORY_MIB: Final = PREFIX + "memory-mib"
NATIVE_RESOURCES: Final = (SLOT, CORE_MILLI, MEMORY_MIB)
NATIVE: Final = "native"
"""The backend that uses these resources: our own scheduler and node daemon."""

# Variables that tell a container its share.
SHARE_VARIABLE: Final = "GPU_FRACTION"
MEMORY_VARIABLE: Final = "GPU_MEMORY_LIMIT_MIB"
SIMULATED_VARIABLE: Final = "GPU_FRACTION_SIMULATED"

SCHEDULER: Final = "gpu-fraction-scheduler"
SYSTEM_NAMESPACE: Final = "gpu-fraction-system"


def is_ours(key: str) -> bool:
    """True for every annotation key that belongs to the product, known or not.

    Keys of the form ``gpu-*`` have no domain and all belong to the product; keys with another
    domain (``example.com/gpu-x``) do not.
    """
    return key.startswith(PREFIX) or (key.startswith("gpu-") and "/" not in key)
