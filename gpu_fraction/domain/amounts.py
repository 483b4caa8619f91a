"""Amounts that a quota counts: integers by key, and their Kubernetes quantities.

The keys are ``cores`` (thousandths of a GPU), ``memory`` (MiB), ``gpus`` and ``pods``. The key of
an amount of one GPU model has the model before a dot: ``A100.memory``.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from gpu_fraction.domain import units

Amounts = Mapping[str, int]
"""Amount by key; an absent key is zero in a demand and no limit in a budget."""

CORES: Final = "cores"
MEMORY: Final = "memory"
GPUS: Final = "gpus"
PODS: Final = "pods"
KEYS: Final = (CORES, MEMORY, GPUS, PODS)
MODEL_KEYS: Final = (CORES, MEMORY, GPUS)
"""Kinds that a quota can limit for one GPU model."""

MAX_AMOUNT: Final = 10**15
"""The largest limit, and the most that one pod may ask for under a quota. Chosen: 10^12 GPUs in
thousandths, and far inside the range of JSON's integers."""

_ALLOWED: Final = {
    CORES: 'GPUs as a quantity, in steps of 0.001 ("4", "500m")',
    MEMORY: 'bytes as a quantity ("160Gi", "512Mi")',
    GPUS: "a whole number, 0 or more",
    PODS: "a whole number, 0 or more",
}


def model_key(model: str, key: str) -> str:
    """The key of an amount of one GPU model; of all GPUs where the model is empty."""
    return f"{model}.{key}" if model else key


def split_key(key: str) -> tuple[str, str]:
    """Model and kind of a key; the model is empty for all GPUs. Models may hold dots."""
    model, _, kind = key.rpartition(".")
    return model, kind


def parse_amount(kind: str, value: str | int) -> int:
    """A quantity as an integer: thousandths, MiB or a count.

    Memory is rounded down to whole MiB, because pods request whole MiB and a budget must not
    grow.

    Args:
        kind: One of ``KEYS``.
        value: The quantity as written; YAML makes integers of plain numbers.

    Raises:
        UnitError: not a quantity, negative, too fine or too large.
    """
    amount = _parse(kind, value)
    if amount > MAX_AMOUNT:
        raise units.UnitError("too large", _ALLOWED[kind])
    return amount


def parse_taken(kind: str, value: str | int) -> int:
    """Like ``parse_amount``, for taken amounts: too large counts as ``MAX_AMOUNT``.

    No limit is above that, so such an amount leaves no room. Pods may request up to 2^63 - 1 of
    every resource, and some were created before the webhook checked them.

    Raises:
        UnitError: not a quantity, negative or too fine.
    """
    return min(_parse(kind, value), MAX_AMOUNT)


def _parse(kind: str, value: str | int) -> int:
    allowed = _ALLOWED[kind]
    try:
        number = units.parse_quantity(str(value))
    except units.UnitError as e:
        raise units.UnitError(e.reason, allowed) from e
    if number < 0:
        raise units.UnitError("negative", allowed)
    if kind == MEMORY:
        if 0 < number < units.MIB:
            # Nearly always a number without its unit: "160" is 160 bytes.
            raise units.UnitError("less than 1Mi", allowed)
        return int(number // units.MIB)
    scaled = number * units.MILLI if kind == CORES else number
    if scaled != scaled.to_integral_value():
        raise units.UnitError("too fine", allowed)
    return int(scaled)


def format_amount(key: str, amount: int) -> str:
    """An amount as the shortest exact quantity: 2500 cores are ``2500m``, 8192 memory ``8Gi``."""
    kind = split_key(key)[1]
    if kind == CORES:
        return str(amount // units.MILLI) if amount % units.MILLI == 0 else f"{amount}m"
    if kind == MEMORY and amount:
        return units.format_memory(amount)
    return str(amount)


def format_list(amounts: Amounts, keys: Iterable[str]) -> str:
    """``cores=2,memory=8Gi`` for the keys, sorted, in the form of ResourceQuota's messages."""
    return ",".join(f"{key}={format_amount(key, amounts.get(key, 0))}" for key in sorted(keys))


def add(first: Amounts, second: Amounts) -> dict[str, int]:
    """The sum by key."""
    total = dict(first)
    for key, amount in second.items():
        total[key] = total.get(key, 0) + amount
    return total
