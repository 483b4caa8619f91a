"""An API server small enough to run inside a test, with faults on demand.

It keeps what clients rely on: versions, optimistic concurrency, watches with bookmarks and
expiry, paging, selectors, patches, server-side apply, status and binding subresources,
admission webhooks. The contract tests hold it to a real kube-apiserver. It has no
authorization, no schema validation beyond names, and no controllers.
"""

from gpu_fraction.sandbox.apiserver.faults import (
    Answer,
    DelayWatch,
    DropWatch,
    Fault,
    Faults,
    Hang,
    Late,
    Reset,
    Slow,
    Text,
)
from gpu_fraction.sandbox.apiserver.kinds import Kind
from gpu_fraction.sandbox.apiserver.server import ApiServer

__all__ = [
    "Answer",
    "ApiServer",
    "DelayWatch",
    "DropWatch",
    "Fault",
    "Faults",
    "Hang",
    "Kind",
    "Late",
    "Reset",
    "Slow",
    "Text",
]
