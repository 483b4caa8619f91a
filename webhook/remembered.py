"""Answers on pods that were judged before, by what was decoded of them."""

from collections import OrderedDict
from typing import Final

import msgspec

from gpu_fraction.domain.pod import Pod
from gpu_fraction.webhook.review import Answer

MAX_ANSWERS: Final = 512
MAX_KEY_BYTES: Final = 8192
"""Chosen: a few MiB at most, whatever tenants send."""

_ENCODER: Final = msgspec.msgpack.Encoder()


def essence(path: str, backend: str, pod: Pod, *, trusted: bool) -> bytes:
    """Everything that an answer on a new pod depends on, besides the settings."""
    # All annotations, not ours alone: what is there already is left out of the patch.
    return _ENCODER.encode((path, backend, trusted, pod))


class Remembered:
    """The answers used last, bounded in number and size."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def get(self, key: bytes) -> Answer | None:
        """The answer, if the same pod was judged before."""
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def keep(self, key: bytes, answer: Answer) -> None:
        """Remember an answer; the one not used for longest goes."""
        if len(key) > MAX_KEY_BYTES:
            return
        self._answers[key] = answer
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
