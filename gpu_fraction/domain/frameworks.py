"""Environment variables by which machine learning frameworks learn their part of a card's memory.

The part is of the card's total memory as a process sees it, so only containers get these
variables whose isolation leaves that total as it is. A framework keeps to them of its own
accord: this is no isolation (docs/frameworks.md).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gpu_fraction.domain.pod import EnvFrom, EnvVar
from gpu_fraction.domain.units import MILLI, format_milli, format_percent

Switch = Literal["on", "off"]
"""Whether containers get the variables: a setting of the cluster and of each node."""

OFF: Final[Switch] = "off"
"""The one value of the annotation ``gpu-fraction.dev/framework-env``."""

Own = Mapping[str, str | None]
"""Variables that a container sets itself; None as a value where that value is not known."""

CONTEXT_MIB: Final = 512
"""Memory of a process that frameworks do not count: the CUDA context and loaded kernels.

Chosen: in the upper part of the 0.3 to 0.6 GiB that users report (pytorch/pytorch#58466).
"""

ASSUMED_CARD_MIB: Final = 16 << 10
"""A card whose size is not known. Chosen: the smallest that clouds share (T4), so that the
reserve for the context is too large on others, and never too small."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    Attributes:
        framework: Who reads it.
        name: Its name.
        value: The form of the value: ``{part}`` such as 0.25, ``{percent}`` such as
            25%, and ``{mib}`` an amount, for which the card's size must be known.
        key: Of a value that is a list ``key:value,key:value``, the key that tells the part; a
            list of the user's without the key is extended.
        instead: Other names by which a user decides the same.
        size_known: Written only where the card's size is known, or only where it is not.
        since: The first version that understands it.
        source: Where this is written; read on 2026-12-01.
        unverified: What was not confirmed.
    """

    framework: str
    name: str
    value: str
    key: str = ""
    instead: tuple[str, ...] = ()
    size_known: bool | None = None
    since: str = ""
    source: str = ""
    unverified: str = ""


OURS: Final = "GPU_MEMORY_FRACTION"
"""The one variable that no framework reads, and that belongs to this project."""

VARIABLES: Final = (
    Variable(
        "any program",
        OURS,
        "{part}",
        since="a variable of this project",
    ),
    Variable(
        "PyTorch",
        "PYTORCH_ALLOC_CONF",
        "per_process_memory_fraction:{part}",
        key="per_process_memory_fraction",
        # The older names win over the new one in 2.10 and 2.15. They are never written or
        # extended: 2.9 and older fail at an unknown key in them, and ignore it in the new one.
        instead=("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"),
        since="2.10",
        source="pytorch/pytorch#161035; allocator libraries of the wheels 2.8.0 to 2.15.0",
        unverified="the cap itself: it needs a GPU",
    ),
    Variable(
        "JAX",
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
        "{part}",
        # The older of two names: every version reads it, and most programs that decide for
        # themselves set it too. JAX fails where both have a value.
        instead=("XLA_CLIENT_MEM_FRACTION",),
        since="jaxlib 0.4.1 as a part of the total",
        source="docs.jax.dev, GPU memory allocation; jaxlib 0.4.1 release notes; "
        "xla_client.py of jaxlib 0.12.0.1",
        unverified="the bound itself: it needs a GPU",
    ),
    Variable(
        "JAX",
        "XLA_CLIENT_MEM_FRACTION",
        "",  # as if unset: an image that sets it does not meet the other name
        instead=("XLA_PYTHON_CLIENT_MEM_FRACTION",),
        since="jaxlib 0.4.33",
        source="xla_client.py of jaxlib 0.4.31, 0.4.33 and 0.12.0.1",
    ),
    Variable(
        "Paddle",
        "FLAGS_gpu_memory_limit_mb",
        "{mib}",
        instead=("FLAGS_fraction_of_gpu_memory_to_use",),
        size_known=True,
        since="2.x; the first release was not looked up",
        source="PaddlePaddle/Paddle, flags.cc and gpu_info.cc",
        unverified="the cap itself: it needs a GPU",
    ),
    Variable(
        "Paddle",
        "FLAGS_fraction_of_gpu_memory_to_use",
        "{part}",
        instead=("FLAGS_gpu_memory_limit_mb",),
        size_known=False,
        since="1.2",
        source="paddlepaddle.org.cn, memory management flags",
        unverified="the effect: it needs a GPU",
    ),
    Variable(
        "TensorFlow",
        "TF_FORCE_GPU_ALLOW_GROWTH",
        "true",
        since="1.x; the first release was not looked up",
        source="tensorflow/tensorflow, gpu_process_state and gpu_bfc_allocator",
        unverified="the effect: it needs a GPU",
    ),
    Variable(
        "CuPy",
        "CUPY_GPU_MEMORY_LIMIT",
        "{percent}",
        since="documented from 6.7 on",
        source="docs.cupy.dev, environment variables",
        unverified="the cap itself: it needs a GPU",
    ),
)
"""Every variable; a framework is a line here."""

NAMES: Final = frozenset(name for one in VARIABLES for name in (one.name, *one.instead))
"""Names that a container may set to decide for itself."""


def own(env: Iterable[EnvVar] | None, env_from: Collection[EnvFrom] | None) -> Own:
    """The variables of frameworks that a container sets itself.

    Any of them may be in a ConfigMap or Secret, and the kubelet expands ``$`` in a value.
    """
    found: dict[str, str | None] = dict.fromkeys(NAMES - {OURS}) if env_from else {}
    for var in env or ():
        if var.name in NAMES:
            known = var.value is not None and "$" not in var.value
            found[var.name] = var.value if known else None
    return found


def variables(
    part_milli: int,
    card_mib: int | None = None,
    given: Own | None = None,
) -> dict[str, str]:
    """The variables of a container, less those that it sets itself.

    Args:
        part_milli: Its memory on each card in thousandths of the card's total, 0 or more.
        card_mib: MiB of the smallest card; None where that is not known.
        given: The variables that the container sets itself, of ``own``.

    Returns:
        None of them for whole cards: nobody else is on them, and the frameworks' own defaults
        are right.
    """
    if part_milli >= MILLI:
        return {}
    whole_mib = card_mib or ASSUMED_CARD_MIB
    share_mib = whole_mib * part_milli // MILLI
    left_mib = share_mib - min(CONTEXT_MIB, share_mib // 2)
    left_milli = max(1, left_mib * MILLI // whole_mib)
    amounts = {
        "part": format_milli(left_milli),
        "percent": format_percent(left_milli),
        "mib": max(1, left_mib),
    }
    found = {}
    for one in VARIABLES:
        if one.size_known in (None, card_mib is not None):
            value = _beside(one, one.value.format_map(amounts), given or {})
            if value is not None:
                found[one.name] = value
    return found


def _beside(one: Variable, value: str, given: Own) -> str | None:
    """The value beside what the container sets itself; None where that decides."""
    if any(name in given for name in one.instead):
        return None
    if one.name not in given:
        return value
    present = given[one.name]
    if not one.key or present is None or one.key in present:
        return None
    return ",".join(filter(None, (present.rstrip(", "), value)))
