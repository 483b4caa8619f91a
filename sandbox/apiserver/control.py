"""Faults for a server that runs as a process of its own: ``/-/`` on its loopback port.

- ``POST /-/faults`` with ``{"action": {"type": "Answer", "code": 503}, "verb": "list"}``:
  the type is the name of a class in :mod:`sandbox.apiserver.faults`, the rest its fields
- ``DELETE /-/faults``
- ``POST /-/compact``: every version handed out so far expires
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gpu_fraction.sandbox.apiserver import faults
from gpu_fraction.sandbox.apiserver.failures import bad_request, no_such_path
from gpu_fraction.sandbox.apiserver.faults import Action, Fault, Faults
from gpu_fraction.sandbox.apiserver.storage import Storage

_ACTIONS: Final[Mapping[str, type[Action]]] = {
    action.__name__: action
    for action in (
        faults.Answer,
        faults.Text,
        faults.Hang,
        faults.Slow,
        faults.Late,
        faults.Reset,
        faults.DropWatch,
        faults.DelayWatch,
    )
}


def control(method: str, path: str, body: bytes, rules: Faults, storage: Storage) -> None:
    """Carry out a control request.

    Raises:
        ApiFailure: there is no such request, or its body names no fault.
    """
    match method, path:
        case "POST", "/-/faults":
            rules.add(parse_fault(body))
        case "DELETE", "/-/faults":
            rules.clear()
        case "POST", "/-/compact":
            storage.compact()
        case _:
            raise no_such_path()


def parse_fault(body: bytes) -> Fault:
    """A rule from JSON.

    Raises:
        ApiFailure: 400 where it names no fault, or a field is wrong.
    """
    try:
        rule = msgspec.json.decode(body, type=dict[str, Any])
        fields = msgspec.convert(rule.pop("action", {}), type=dict[str, Any])
        name = fields.pop("type", "")
        if name not in _ACTIONS:
            raise bad_request(f"action.type must be one of {', '.join(_ACTIONS)}, not {name!r}")
        return Fault(msgspec.convert(fields, type=_ACTIONS[name]), **rule)
    except (msgspec.MsgspecError, TypeError) as error:
        raise bad_request(str(error)) from error
