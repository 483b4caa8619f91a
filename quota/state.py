"""Conversion of a GPUQuota between its wire form and the form for decisions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gpu_fraction.domain import amounts, units
from gpu_fraction.domain.amounts import Amounts
from gpu_fraction.domain.problems import Problem
from gpu_fraction.kube.objects import Key
from gpu_fraction.quota.ledger import Ledger, Reservation
from gpu_fraction.quota.spec import QuotaSpec, parse_spec
from gpu_fraction.quota.wire import (
    AMOUNT_UNKNOWN,
    READY,
    AmountsWire,
    GPUQuota,
    ModelAmounts,
    ReservationWire,
    StatusWire,
)


@dataclass(frozen=True, slots=True)
class Quota:
    """One version of one GPUQuota.

    Attributes:
        wire: The object itself.
        spec: Its checked specification.
        problems: Faults of the specification; with any of them it is not used.
        reserved: The reservations in its status, by pod uid.
        ledger: The taken amounts; None until the controller has counted for this specification.
    """

    wire: GPUQuota
    spec: QuotaSpec
    problems: tuple[Problem, ...]
    reserved: Mapping[str, Reservation]
    ledger: Ledger | None

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.wire.metadata.namespace, self.wire.metadata.name

    @property
    def name(self) -> str:
        """Its name."""
        return self.wire.metadata.name

    @property
    def memory_unknown(self) -> bool:
        """True where pods were counted without their memory."""
        conditions = self.wire.status.conditions or ()
        return any((c.type, c.reason) == (READY, AMOUNT_UNKNOWN) for c in conditions)


def read(wire: GPUQuota) -> Quota:
    """Parse the object. Never raises, because a status may hold anything."""
    spec, problems = parse_spec(wire.spec)
    reserved = dict(_reserved(wire.status, spec))
    return Quota(wire, spec, problems, reserved, _ledger(wire, spec, reserved))


def _reserved(status: StatusWire, spec: QuotaSpec) -> Iterator[tuple[str, Reservation]]:
    """The reservations by pod uid. An unreadable amount counts as the largest one."""
    for wire in status.reserved or ():
        found = _amounts(wire, amounts.MAX_AMOUNT)
        for model in spec.models:
            for kind in amounts.MODEL_KEYS:
                # The model's limit is newer than the reservation, and the pod may get that model.
                found.setdefault(amounts.model_key(model, kind), found.get(kind, 0))
        counted = _amounts(wire.counted, 0) if wire.counted else {}
        yield wire.pod_uid, Reservation(found, wire.expires, wire.pod_name, counted)


def _ledger(wire: GPUQuota, spec: QuotaSpec, reserved: Mapping[str, Reservation]) -> Ledger | None:
    """The status as a ledger; None where it was not counted for this very specification."""
    status = wire.status
    if status.used is None or status.observed_generation != wire.metadata.generation:
        return None
    try:
        used = _amounts(status.used)
    except units.UnitError:
        return None  # another client wrote it; the controller counts again
    return Ledger(used, reserved) if spec.hard.keys() <= used.keys() else None


def _amounts(wire: AmountsWire, unreadable: int | None = None) -> dict[str, int]:
    """Amounts by key.

    Args:
        wire: The amounts as quantities.
        unreadable: Value of an amount that cannot be read; None to raise.

    Raises:
        UnitError: an amount cannot be read.
    """
    found: dict[str, int] = {}
    for model, kind, value in wire.quantities():
        try:
            amount = amounts.parse_taken(kind, value)
        except units.UnitError:
            if unreadable is None:
                raise
            amount = unreadable
        found[amounts.model_key(model, kind)] = amount
    return found


def amounts_wire(of: Amounts) -> AmountsWire:
    """Amounts as quantities."""
    flat, by_model = _grouped(of)
    return AmountsWire(**flat, models=by_model)


def reservation_wire(uid: str, reservation: Reservation) -> ReservationWire:
    """A reservation as quantities."""
    flat, by_model = _grouped(reservation.amounts)
    return ReservationWire(
        pod_uid=uid,
        pod_name=reservation.name,
        expires=reservation.expires,
        counted=amounts_wire(reservation.counted) if reservation.counted else None,
        models=by_model,
        **flat,
    )


def _grouped(of: Amounts) -> tuple[dict[str, str], dict[str, ModelAmounts] | None]:
    flat: dict[str, str] = {}
    by_model: dict[str, dict[str, str]] = {}
    for key, amount in of.items():
        model, kind = amounts.split_key(key)
        place = by_model.setdefault(model, {}) if model else flat
        place[kind] = amounts.format_amount(key, amount)
    return flat, {m: ModelAmounts(**part) for m, part in by_model.items()} or None
