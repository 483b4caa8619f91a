"""Links into the documentation."""

import re
from typing import Final

_NOT_IN_ANCHORS: Final = re.compile(r"[^\w\- ]")


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it.

    Source: github.com/gjtorikian/html-pipeline, table_of_contents_filter.rb.
    """
    return _NOT_IN_ANCHORS.sub("", heading.lower()).replace(" ", "-")
