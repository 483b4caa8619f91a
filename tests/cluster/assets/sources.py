"""The package sources of this machine, read so that a private list can be made from them.

Both notations of sources.list(5) are understood: one line an entry, and deb822 stanzas. What a
source says beside its types and suites (address, components, keys, options) is kept as it stands.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.assets.steps import AssetError

_ONE_LINE = re.compile(
    r"^(?P<type>deb|deb-src)\s+(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<rest>.+)$"
)


@dataclass(frozen=True, slots=True)
class Source:
    """One archive that offers binary packages, without its types and suites.

    Attributes:
        suites: the suites this machine uses from it.
        fields: the other deb822 fields, as ``(name, text)``.
    """

    suites: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]

    def stanza(self, types: str, suite: str) -> str:
        """The source as a deb822 stanza for one suite."""
        lines = [f"Types: {types}", f"Suites: {suite}"]
        return "\n".join([*lines, *(f"{name}: {text}" for name, text in self.fields)]) + "\n"


def read_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """Every enabled binary source of the machine."""
    files = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]
    found: list[Source] = []
    for file in files:
        if file.suffix == ".list" and file.is_file():
            found.extend(_one_line_sources(file.read_text()))
        elif file.suffix == ".sources" and file.is_file():
            found.extend(_deb822_sources(file.read_text()))
    return found


def private_list(sources: list[Source], release: str, next_release: str) -> str:
    """A deb822 list: ``release`` with its source packages, and ``next_release`` beside it.

    Raises:
        AssetError: no source of the machine has the suite ``release``.
    """
    of_release = [source for source in sources if release in source.suites]
    if not of_release:
        raise AssetError(f"no package source of this machine has the suite {release!r}")
    stanzas = [source.stanza("deb deb-src", release) for source in of_release]
    stanzas += [source.stanza("deb", next_release) for source in of_release]
    return "\n".join(stanzas)


def _one_line_sources(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        match = _ONE_LINE.match(line.partition("#")[0].strip())
        if match is None or match["type"] != "deb":
            continue
        fields = [("URIs", match["uri"]), ("Components", match["rest"].strip())]
        for option in (match["options"] or "").strip("[] \t").split():
            name, _, value = option.partition("=")
            fields.append((_DEB822_NAMES.get(name, name), value.replace(",", " ")))
        yield Source((match["suite"],), tuple(fields))


def _deb822_sources(text: str) -> Iterator[Source]:
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and name:
                fields[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        enabled = fields.pop("Enabled", "yes").lower() not in {"no", "false", "0"}
        types = fields.pop("Types", "").split()
        suites = tuple(fields.pop("Suites", "").split())
        if enabled and "deb" in types and suites:
            yield Source(suites, tuple(fields.items()))


_DEB822_NAMES = {
    "signed-by": "Signed-By",
    "arch": "Architectures",
    "trusted": "Trusted",
    "lang": "Languages",
    "check-valid-until": "Check-Valid-Until",
    "by-hash": "By-Hash",
}
"""Option names of the one-line notation in deb822. Source: sources.list(5)."""
