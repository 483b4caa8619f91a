"""Whether a container could ever run a process as user 0.

The MPS server accepts commands from user 0, so its limits hold only in pods where no process can
become that user. A single such container is enough: the containers of a pod share a network and
often volumes, through which one can hand an open socket directory to another.
"""

from typing import Final

from gpu_fraction.domain.pod import SecurityContext
from gpu_fraction.domain.problems import Problem

NOT_KNOWN: Final = "spec.containers[*].securityContext: not read"
"""The problem of a pod whose security context was not read."""


def root_problem(
    path: str, own: SecurityContext | None, pod: SecurityContext | None
) -> Problem | None:
    """The field that lets a container become root; None where it cannot.

    The kubelet enforces a user other than 0 for the first process only. Without privilege
    escalation, setuid programs, file capabilities and added capabilities have no effect; the API
    server refuses ``privileged`` and ``CAP_SYS_ADMIN`` beside it.
    Source: Kubernetes, "Configure a Security Context" (the container's fields override the
    pod's) and validation of containers; Linux, Documentation/userspace-api/no_new_privs.rst.

    Args:
        path: The container's field path, for example ``spec.containers[0]``.
        own: The container's security context.
        pod: The pod's security context.
    """
    levels = [level for level in (own, pod) if level is not None]
    user = next((level.run_as_user for level in levels if level.run_as_user is not None), None)
    non_root = next(
        (level.run_as_non_root for level in levels if level.run_as_non_root is not None), False
    )
    context = f"{path}.securityContext"
    if user == 0:
        return Problem(f"{context}.runAsUser", "0 is root; allowed: any other")
    if user is None and not non_root:
        return Problem(
            f"{context}.runAsNonRoot", "is not true; allowed: true, or a runAsUser other than 0"
        )
    if own is None or own.allow_privilege_escalation is not False:
        return Problem(
            f"{context}.allowPrivilegeEscalation",
            "is not false, so a setuid program can become root; allowed: false",
        )
    return None
