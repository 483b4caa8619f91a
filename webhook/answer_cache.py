"""A cache of answers on new pods, keyed by everything that an answer depends on."""

from collections import OrderedDict
from typing import Final

import msgspec

from gpu_fraction.domain.pod import Pod
from gpu_fraction.webhook.review import Answer

MAX_ANSWERS: Final = 512
MAX_KEY_BYTES: Final = 8192
"""Chosen: a few MiB at most, whatever tenants send."""

_ENCODER: Final = msgspec.msgpack.Encoder()


def cache_key(path: str, backend: str, pod: Pod, *, trusted: bool) -> bytes:
    """The key of an answer: all its inputs except the settings."""
    # All annotations, not only ours: the patch leaves out what the pod already has.
    return _ENCODER.encode((path, backend, trusted, pod))


class AnswerCache:
    """The most recently used answers, bounded in number and key size."""

    def __init__(self) -> None:
        """Start empty."""
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def get(self, key: bytes) -> Answer | None:
        """The cached answer, or None."""
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: Answer) -> None:
        """Cache an answer; evicts the least recently used one when full."""
        if len(key) > MAX_KEY_BYTES:
            return
        self._answers[key] = answer
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
