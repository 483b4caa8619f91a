"""Settings of the templates of claims."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from gpu_fraction.settings.declaration import setting
from gpu_fraction.settings.parsers import choice, seconds

Mode = Literal["off", "labelled", "all"]

GRACE_S: Final = 600.0
"""Chosen: longer than the pauses between the runs of most CronJobs' pods and between two rollouts
of one Deployment."""


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """Which templates are made, and for how long they stay."""

    dra: Mode = setting(
        choice(*get_args(Mode)),
        "off",
        "make the ResourceClaimTemplates of the backend dra; ahead of the pods in namespaces with "
        "the label gpu-fraction.dev/backend=dra (labelled), or also in those without it (all)",
    )
    dra_template_grace_s: float = setting(
        seconds(1, 86400), GRACE_S, "remove a template after it was unused for this time"
    )
