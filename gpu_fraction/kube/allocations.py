"""What the scheduler gave to a ResourceClaim (resource.k8s.io/v1), as far as it is read."""

import msgspec


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A device of an allocation; amounts are quantities."""

    request: str = ""
    driver: str = ""
    pool: str = ""
    device: str = ""
    consumed_capacity: dict[str, str] | None = None


class Results(msgspec.Struct, frozen=True):
    """The devices of an allocation."""

    results: list[Result] | None = None


class Allocation(msgspec.Struct, frozen=True):
    """What a claim was given."""

    devices: Results = Results()
