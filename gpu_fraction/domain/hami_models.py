"""The models that HAMi is asked for by annotations, which Volcano reads as well.

Source of the comparison with the names of cards: HAMi pkg/device/devices.go, CheckType.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Final

from gpu_fraction.domain import models
from gpu_fraction.domain.edit import PodEdit
from gpu_fraction.domain.request import Request

USE_TYPE: Final = "nvidia.com/use-gputype"
AVOID_TYPE: Final = "nvidia.com/nouse-gputype"


def choose_models(request: Request, edit: PodEdit, configured: Iterable[str], stack: str) -> None:
    """The annotations for models, of HAMi and of the stacks that read HAMi's.

    Args:
        request: The pod's.
        edit: Gets the annotations, and a warning where names are not told apart.
        configured: Models of the cluster, besides ``models.KNOWN``.
        stack: The stack's name for the warning.
    """
    avoided = _spelt(request.not_models)
    if request.models:
        edit.annotations[USE_TYPE] = ",".join(_spelt(request.models))
        # What is a part of a wanted name as well would keep the pod off that one.
        mistaken = _mistaken(request.models, configured)
        wanted = ",".join(request.models).casefold()
        avoided = [name for name in mistaken if name.casefold() not in wanted]
        if mistaken:
            edit.warn(
                f"{stack} looks for {','.join(request.models)} anywhere in a card's name: "
                f"{AVOID_TYPE} keeps the pod off {', '.join(avoided) or 'none'}; other names "
                "that hold it are not told apart"
            )
    elif also := _mistaken(request.not_models, configured):
        edit.warn(
            f"{stack} looks for {','.join(request.not_models)} anywhere in a card's name: the pod "
            f"stays off {', '.join(also)} too"
        )
    if avoided:
        edit.annotations[AVOID_TYPE] = ",".join(avoided)


def read_models(found: Request, annotations: Mapping[str, str]) -> Request:
    """The request with the models of these annotations."""
    wanted = _once(annotations.get(USE_TYPE))
    avoided = () if wanted else _once(annotations.get(AVOID_TYPE))
    return replace(found, models=wanted, not_models=avoided)


def names_in(text: str | None) -> tuple[str, ...]:
    """The names in a list that is separated by commas."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _once(text: str | None) -> tuple[str, ...]:
    """Each model in the first of its spellings."""
    first: dict[str, str] = {}
    for name in names_in(text):
        first.setdefault(name.casefold().replace("-", " "), name)
    return tuple(first.values())


def _spelt(names: Iterable[str]) -> list[str]:
    """Each name in the forms that ``models.matches`` takes for one.

    With hyphens, with spaces, and in NVML's form of a label of GPU feature discovery:
    ``NVIDIA-A100-SXM4-40GB`` is ``NVIDIA A100-SXM4-40GB`` there.
    """
    spelt = ((n, n.replace(" ", "-"), n.replace("-", " "), n.replace("-", " ", 1)) for n in names)
    return list(dict.fromkeys(chain.from_iterable(spelt)))


def _mistaken(names: Collection[str], configured: Iterable[str]) -> list[str]:
    """Models that HAMi takes for one of these, because the name is a part of theirs.

    Of a name of several words, the first and the last can be parts of longer words:
    ``NVIDIA A10`` stands in ``NVIDIA A100-SXM4-40GB``.
    Source of the comparison: HAMi pkg/device/devices.go, CheckType.
    """
    spelt = [name.casefold() for name in _spelt(names)]
    words = [name.split() for name in spelt]
    found = {
        model
        for model in (*models.KNOWN, *configured)
        if models.allowed(model, (), names) and _part_of(spelt, words, model.casefold())
    }
    return sorted(found)


def _part_of(names: Iterable[str], words: Iterable[list[str]], model: str) -> bool:
    """True where HAMi finds a name in the model, or in a product name with this model."""
    return any(name in model for name in names) or any(
        model not in name and (model.startswith(name[-1]) or model.endswith(name[0]))
        for name in words
        if len(name) > 1
    )
