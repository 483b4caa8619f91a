"""Versions of what one program writes and another one, or a later release, reads.

A format has the number ``v``. A field that readers may pass over joins the same version; what
would be read wrongly makes a new one, and a reader refuses versions that it does not know
(docs/formats.md).
"""

from typing import Annotated, Final

import msgspec


class _Versioned(msgspec.Struct, frozen=True):
    # The upper end is chosen: the message repeats the number.
    v: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


_DECODER: Final = msgspec.json.Decoder(_Versioned)


def other_version(content: str | bytes, reads: int) -> str:
    """What is to be said of content of another version; empty where it is of this one, or damaged.

    Args:
        content: JSON, as it was found.
        reads: The version that the caller reads.
    """
    try:
        found = _DECODER.decode(content).v
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    if found == reads:
        return ""
    release = "a newer" if found > reads else "another"
    return f"version {found}, from {release} release; this program reads version {reads}"
