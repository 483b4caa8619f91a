"""The choice of a MIG instance for a pod, for every stack that hands them out."""

from gpu_fraction.domain import keys, mig, units
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.pod import Container
from gpu_fraction.domain.pod_amounts import asked_for
from gpu_fraction.domain.request import Slice
from gpu_fraction.domain.sizes import Amounts


def the_model(edit: PodEdit, text: str, setting: str) -> mig.Model | None:
    """The one model that a text means; anything else is a problem.

    Args:
        edit: The pod's.
        text: What the user or the setting names; empty for nothing.
        setting: The flag that can name it.
    """
    found = mig.find(text)
    if len(found) == 1:
        return found[0]
    known = ", ".join(model.name for model in found or mig.MODELS)
    if not text:
        reason = f"is missing, and MIG profiles depend on it; set it or {setting}"
    elif found:
        reason = f"{text} means several GPUs with different MIG profiles"
    else:
        reason = f"{text} is no GPU whose MIG profiles are known"
    edit.refuse(keys.MODEL, f"{reason}; allowed: {known}")
    return None


def instance(
    edit: PodEdit, key: str, part: Slice, model: mig.Model
) -> tuple[mig.Profile | None, Amounts]:
    """The smallest profile that holds a container's request, and what to tell the container.

    A share of a card is a share of its slices, so no setting has to say how large the card is.
    """
    name = f"container {part.container}"
    profile = model.holding(part)
    if profile is None:
        most = model.profiles[-1].least_mib
        edit.refuse(
            key,
            f"{name} asks for more than the largest instance of {model.name} is sure to have, "
            f"{most} MiB; allowed: gpu-memory {most}Mi or less, or a share of a GPU",
        )
        return None, Amounts(None, None)
    edit.warn(
        f"{name}: the MIG instance {profile.name} of {model.name} has {profile.compute} of "
        f"{model.compute} compute slices and {profile.least_mib} MiB or more"
    )
    if part.cards > 1:
        edit.warn(f"{name}: its {part.cards} instances can be of one GPU")
    return profile, Amounts(part.core_milli, part.memory_mib or profile.least_mib)


def charge(
    container: Container, count: int, profile: str, among: list[mig.Model], *, up: bool
) -> Slice:
    """Instances as their part of a card; whole cards where the profile's form is unknown.

    Args:
        container: The container that asks for them.
        count: Instances.
        profile: As a resource name has it.
        among: The models that the card can be of; empty for any.
        up: Amounts are those in the name, and rounded up; else what a container can count on.
    """
    found = mig.charged(profile, among, up=up)
    if found is None or (found[0] == units.MILLI and not up):
        return asked_for(container, cards=count, core_milli=units.MILLI)
    core_milli, memory_mib = found
    return asked_for(container, cards=count, core_milli=core_milli, memory_mib=memory_mib)
