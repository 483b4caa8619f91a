"""Whether a container could ever run a process as user 0.

The MPS server obeys user 0 as its owner, so a limit that it keeps holds only in pods where nobody
can become that user. One container that can is enough: the containers of a pod share a network
and mostly volumes, over which one passes an open socket directory to the other.
"""

from typing import Final

from gpu_fraction.domain.pod import SecurityContext
from gpu_fraction.domain.problems import Problem

NOT_KNOWN: Final = "spec.containers[*].securityContext: not read"
"""The risk of a pod that nobody has looked at."""


def root_problem(
    path: str, own: SecurityContext | None, pod: SecurityContext | None
) -> Problem | None:
    """The field by which a container could be root, None where it cannot.

    The kubelet keeps a user other than 0 for the first process only. Without new privileges a
    setuid program, file capabilities and added capabilities change nothing any more; the API
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
            "is not false, so that a setuid program makes it root; allowed: false",
        )
    return None
