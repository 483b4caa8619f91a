"""The ResourceClaimTemplate of each request: its specification, and a name that states it.

A template cannot change, so its name holds a hash of its claims' specification: equal requests
share one, and one of another shape is another object. The amounts stand in the name as well, so
that a pod's cost is known from the pod alone (docs/adr/0080).
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from gpu_fraction.domain import dra, units
from gpu_fraction.domain.demand import Demand, demand_of
from gpu_fraction.domain.pod import Pod, containers
from gpu_fraction.domain.request import MAX_CARDS, Request, Slice

SCHEMA: Final = 1
"""Part of the hash; a new one where the same request is to get another specification. ``proves``
must then know the old one as well: templates that it does not know are replaced."""

REQUEST: Final = "gpu"
"""Name of the only request of a claim."""

MAX_MIB: Final = 1 << 40
"""Largest amount read from a name: chosen, no sum overflows."""

_NAME: Final = re.compile(
    re.escape(dra.CLAIM) + r"(?:(whole)|(?:([1-9]\d{0,3})c-)?"
    r"(?:([1-9]\d{0,3})m|([1-9]\d{0,12})mi-of((?:-[1-9]\d{0,12}){1,8})))"
    r"(?:-x([1-9]\d{0,4}))?-[0-9a-f]{32}",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The amounts of one claim, and the cards' sizes that they were worked out for.

    Attributes:
        share: The request of the container.
        sizes_mib: Memory of the cards that an amount of MiB may be taken of, ascending; empty for
            a share of the memory, which needs no size.
    """

    share: Slice
    sizes_mib: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """The amounts, as they stand in the template's name."""
        part = self.share
        if part.whole:
            found = "whole"
        else:
            cores = "" if part.core_milli is None else f"{part.core_milli}c-"
            sizes = "-".join(map(str, self.sizes_mib))
            memory = f"{part.memory_mib}mi-of-{sizes}" if sizes else f"{part.memory_milli}m"
            found = cores + memory
        return found if part.cards == 1 else f"{found}-x{part.cards}"

    def core_milli_of(self, size_mib: int) -> int:
        """Thousandths of the compute of a card of that size."""
        part = self.share
        if part.core_milli is not None:
            return part.core_milli
        return max(1, min(units.MILLI, (part.memory_mib or 0) * units.MILLI // size_mib))

    @property
    def demand(self) -> Demand:
        """The cost: of several sizes, the one that costs most."""
        part = self.share
        if part.memory_mib is None:
            return demand_of(part)
        core_milli = max(map(self.core_milli_of, self.sizes_mib))
        return Demand(part.cards, core_milli * part.cards, part.memory_mib * part.cards)

    def spare_core_milli(self, size_mib: int) -> int:
        """Thousandths by which ``demand`` is too high once cards of that size are chosen."""
        if size_mib not in self.sizes_mib:
            return 0
        return self.demand.core_milli - self.core_milli_of(size_mib) * self.share.cards

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata of each claim."""
        exact = not any(map(self.spare_core_milli, self.sizes_mib))
        return {"labels": {dra.CHARGED: dra.EXACT if exact else dra.LARGEST}}


@dataclass(frozen=True, slots=True)
class Template:
    """One ResourceClaimTemplate, without a namespace.

    Attributes:
        name: At most 253 characters.
        spec: Its ``spec``, in the form in which the API server stores it.
    """

    name: str
    spec: Mapping[str, Any]


def template(shape: Shape, request: Request) -> Template:
    """The template of one container's claim.

    Args:
        shape: What it takes of its cards.
        request: The pod's, for the choice of cards and the isolation.
    """
    spec = {"spec": {"devices": _devices(shape, request)}}
    name = f"{dra.CLAIM}{shape.words}-{_digest(spec)}"
    return Template(name, {"metadata": shape.metadata, **spec})


def _digest(spec: object) -> str:
    """128 bits, so that nobody finds two specifications of one name."""
    hashed = msgspec.json.encode({"schema": SCHEMA, "spec": spec}, order="sorted")
    return hashlib.sha256(hashed).hexdigest()[:32]


def proves(name: str, spec: object) -> bool:
    """Whether a template's specification, as the API server stores it, is the one in its name."""
    shape = parse(name)
    if shape is None or not isinstance(spec, dict):
        return False
    # Older servers put a null creationTimestamp into it.
    added = {key: value for key, value in (spec.get("metadata") or {}).items() if value}
    hashed = {key: value for key, value in spec.items() if key != "metadata"}
    return added == shape.metadata and name.endswith(f"-{_digest(hashed)}")


# Chosen: the templates of some hundred namespaces; each container of a pod asks for its claims'.
@lru_cache(maxsize=4096)
def parse(name: str) -> Shape | None:
    """The shape in a template's name; None for a name that no template of ours has.

    The container of its share is empty: the name does not hold one.
    """
    match = _NAME.fullmatch(name) if len(name) <= 253 else None
    if match is None:
        return None
    whole, core, milli, mib, sizes, cards = match.groups()
    if cards == "1" or int(cards or 1) > MAX_CARDS:
        return None
    numbers = tuple(int(size) for size in (sizes or "").split("-") if size)
    try:
        part = Slice(
            "",
            cards=int(cards or 1),
            core_milli=units.MILLI if whole else int(core) if core else None,
            memory_mib=int(mib) if mib else None,
            memory_milli=units.MILLI if whole else int(milli) if milli else None,
        )
    except ValueError:
        return None
    shape = Shape(part, numbers)
    plausible = (part.memory_mib or 0) <= MAX_MIB
    return shape if plausible and name.startswith(f"{dra.CLAIM}{shape.words}-") else None


def claims_of(pod: Pod) -> Iterator[tuple[int, str, Shape]]:
    """The pod's claims that are made of our templates: index, name in the pod, shape."""
    for index, claim in enumerate(pod.spec.resource_claims or ()):
        shape = parse(claim.resource_claim_template_name or "")
        if shape is not None:
            yield index, claim.name, shape


def holders(pod: Pod, names: Collection[str] | None = None) -> dict[str, list[str]]:
    """The containers that use claims of the pod, by the claim's name in it.

    Args:
        pod: The pod.
        names: The claims; None for those of our templates.
    """
    wanted = [name for _, name, _ in claims_of(pod)] if names is None else names
    found: dict[str, list[str]] = {name: [] for name in wanted}
    for at in containers(pod) if found else ():
        for claim in (at.container.resources and at.container.resources.claims) or ():
            if at.container.name not in found.get(claim.name, (at.container.name,)):
                found[claim.name].append(at.container.name)
    return found


def expressions(request: Request) -> list[str]:
    """CEL that keeps a device to the models and cards that the pod names.

    The words of a model stand side by side and whole in the card's, as in ``domain.models``.
    """
    model, uuid = (_attribute(name) for name in (dra.MODEL, dra.UUID))
    found = []
    if request.models:
        found.append(f"has({model}) && {_matches(model, request.models)}")
    if request.not_models:
        found.append(f"!has({model}) || !{_matches(model, request.not_models)}")
    if request.uuids:
        listed = ", ".join(map(_quoted, request.uuids))
        found.append(f"has({uuid}) && {uuid} in [{listed}]")
    return found


def _matches(attribute: str, names: Iterable[str]) -> str:
    words = [[re.escape(word) for word in re.split(r"[ -]+", name) if word] for name in names]
    alternatives = "|".join("[ -]+".join(found) for found in words if found)
    if not alternatives:
        return "false"
    return f"{attribute}.matches({_quoted(f'(?i)(^|[ -])({alternatives})([ -]|$)')})"


def _quoted(text: str) -> str:
    """A literal of CEL; it knows every escape of JSON that is written here."""
    return msgspec.json.encode(text).decode()


def _attribute(name: str) -> str:
    return f"device.attributes['{dra.DRIVER}'].{name}"


def _enforced(request: Request, core_milli: int | None, *, memory: bool) -> Iterator[str]:
    """CEL that keeps a share to cards that enforce it; a part that is all of it needs nothing.

    Args:
        request: The pod's.
        core_milli: Thousandths of the card's compute; None for all of it.
        memory: Whether it is a part of the card's memory.
    """
    if request.isolation != "required":
        return
    compute = core_milli is not None and core_milli < units.MILLI
    for name, part in ((dra.ENFORCES_MEMORY, memory), (dra.ENFORCES_COMPUTE, compute)):
        if part:
            yield f"has({_attribute(name)}) && {_attribute(name)}"


def _devices(shape: Shape, request: Request) -> dict[str, Any]:
    part = shape.share
    found: dict[str, Any]
    if shape.sizes_mib:
        found = {"firstAvailable": [_of_size(shape, request, mib) for mib in shape.sizes_mib]}
    elif part.whole:
        found = {"exactly": _device(part.cards, dra.WHOLE_CLASS, expressions(request))}
    else:
        milli = part.memory_milli or 0
        enforced = _enforced(request, part.core_milli, memory=milli < units.MILLI)
        ppm = milli * (dra.CARD_MEMORY_PPM // units.MILLI)
        selectors = [*enforced, *expressions(request)]
        found = {
            "exactly": _device(part.cards, dra.FRACTION_CLASS, selectors, part.core_milli, ppm)
        }
    devices: dict[str, Any] = {"requests": [{"name": REQUEST, **found}]}
    if request.isolation != "preferred":
        # Left out where it says nothing: Kueue takes no claim with a configuration.
        parameters = {
            "apiVersion": dra.CONFIG_VERSION,
            "kind": dra.CONFIG_KIND,
            "isolation": request.isolation,
        }
        devices["config"] = [{"opaque": {"driver": dra.DRIVER, "parameters": parameters}}]
    return devices


def _of_size(shape: Shape, request: Request, size_mib: int) -> dict[str, Any]:
    """The alternative for cards of one size: never less memory than asked."""
    part = shape.share
    memory_mib, core_milli = part.memory_mib or 0, shape.core_milli_of(size_mib)
    size = _attribute(dra.MEMORY_MIB)
    selectors = [
        f"has({size}) && {size} == {size_mib}",
        *_enforced(request, core_milli, memory=memory_mib < size_mib),
        *expressions(request),
    ]
    ppm = units.ceil_div(memory_mib * dra.CARD_MEMORY_PPM, size_mib)
    device = _device(part.cards, dra.FRACTION_CLASS, selectors, core_milli, ppm)
    return {"name": f"m{size_mib}", **device}


def _device(
    cards: int,
    device_class: str,
    selectors: Iterable[str],
    core_milli: int | None = None,
    memory_ppm: int | None = None,
) -> dict[str, Any]:
    """One request for devices; every amount is named, because the default is all of a card."""
    made: dict[str, Any] = {"deviceClassName": device_class}
    if found := [{"cel": {"expression": text}} for text in selectors]:
        made["selectors"] = found
    made |= {"allocationMode": "ExactCount", "count": cards}
    if core_milli is not None and memory_ppm is not None:
        amounts = {dra.CORES: core_milli, dra.MEMORY_PPM: memory_ppm}
        made["capacity"] = {
            "requests": {name: units.format_count(amount) for name, amount in amounts.items()}
        }
    return made
