"""ResourceSlices and ResourceClaims (resource.k8s.io/v1), as far as views read them."""

import msgspec

from gpu_fraction.dashboard.objects import ObjectMeta, Taint
from gpu_fraction.kube.allocations import Allocation


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """An attribute of a device: one of its fields is set."""

    string: str | None = None
    number: int | None = msgspec.field(default=None, name="int")
    truth: bool | None = msgspec.field(default=None, name="bool")


class Capacity(msgspec.Struct, frozen=True):
    """A capacity of a device, as a quantity."""

    value: str | int = ""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device of a ResourceSlice."""

    name: str = ""
    attributes: dict[str, Attribute] | None = None
    capacity: dict[str, Capacity] | None = None
    taints: list[Taint] | None = None


class Pool(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The pool that a ResourceSlice is a part of."""

    name: str = ""
    generation: int = 0


class DeviceSliceSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The devices of a driver on a node."""

    driver: str = ""
    node_name: str | None = None
    pool: Pool = Pool()
    devices: list[Device] | None = None


class DeviceSlice(msgspec.Struct, frozen=True, kw_only=True):
    """A ResourceSlice."""

    metadata: ObjectMeta = ObjectMeta()
    spec: DeviceSliceSpec = DeviceSliceSpec()


class Consumer(msgspec.Struct, frozen=True):
    """An object that may use a claim; ``resource`` is a plural such as ``pods``."""

    resource: str = ""
    name: str = ""
    uid: str = ""


class ClaimState(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of a claim; without an allocation it waits."""

    allocation: Allocation | None = None
    reserved_for: list[Consumer] | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A ResourceClaim."""

    metadata: ObjectMeta = ObjectMeta()
    status: ClaimState = ClaimState()
