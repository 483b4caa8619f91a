"""Reads and writes manifests: files, folders, several documents, Lists, comments."""

import argparse
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TextIO

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarint import ScalarInt
from ruamel.yaml.scalarstring import SingleQuotedScalarString

from gpu_fraction.cli import aliases

SUFFIXES: Final = (".yaml", ".yml", ".json")

TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""The path of the pod template in each kind."""

_HEAD: Final = re.compile(r"(?:(?:[#%][^\n]*|[ \t]*)\n)*")
"""Comments and directives before a document's marker."""

_BOOLEANS: Final = re.compile(r"(?:[yYnN]|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)")
"""Words for booleans in YAML 1.1 (yaml.org/type/bool.html) that YAML 1.2, which this module reads
and writes, takes for text. Kubernetes reads them as YAML 1.1 does."""

_OCTAL: Final = re.compile(r"[0-7]+")


class ManifestError(Exception):
    """A file cannot be read as manifests; the message names the file and the line."""


Place = tuple[str | int, ...]
"""Keys from a document to a node in it."""


@dataclass(slots=True)
class Document:
    """One YAML document.

    Attributes:
        source: The file's name as given, ``-`` for standard input.
        number: Its position in the file, from 1.
        body: The object, with its comments.
        text: Its text in the file, from its marker to the next.
        changed: True once ``body`` differs from ``text``.
        aliased: False where no part of ``body`` stands in several places.
    """

    source: str
    number: int
    body: Any
    text: str = ""
    changed: bool = False
    aliased: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its text, its documents and its indentation of lists."""

    name: str
    content: str
    documents: list[Document]
    indented_lists: bool


@dataclass(frozen=True, slots=True)
class PodIn:
    """A pod or pod template inside a document.

    Attributes:
        document: The document.
        kind: The workload's kind.
        name: The workload's name, or its generateName.
        namespace: Its namespace; None where it has none.
        path: Keys from the document to the pod.
        raw: The pod itself, part of the document.
    """

    document: Document
    kind: str
    name: str
    namespace: str | None
    path: Place
    raw: MutableMapping[str, Any]

    def __str__(self) -> str:
        return f"{self.document.source}:{self.document.number} {self.kind}/{self.name}"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the argument with the manifests, for ``read``."""
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        required=True,
        metavar="FILE|DIR|-",
        help="manifests: a file, a folder (not recursive) or - for standard input; repeatable",
    )


def read(names: Iterable[str], stdin: TextIO) -> list[Source]:
    """Read files, folders (their ``.yaml``, ``.yml`` and ``.json`` files) and ``-``.

    Raises:
        ManifestError: a file is missing, unreadable or not YAML.
    """
    sources = []
    for name in names:
        if name == "-":
            sources.append(_parse(name, stdin.read()))
            continue
        path = Path(name)
        try:
            files = _files(path) if path.is_dir() else [path]
            sources.extend(_parse(str(file), file.read_text(encoding="utf-8")) for file in files)
        except (OSError, UnicodeDecodeError) as e:
            raise ManifestError(f"{name}: {e}") from e
    return sources


def _files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    if not files:
        raise ManifestError(f"{folder}: contains no {', '.join(SUFFIXES)} file")
    return files


def _parse(name: str, content: str) -> Source:
    yaml = _yaml()
    try:
        bodies = list(yaml.load_all(content))
    except YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        problem = getattr(e, "problem", None) or str(e).splitlines()[0]
        raise ManifestError(f"{name}{place}: not YAML: {problem}") from e
    except (ValueError, RecursionError) as e:
        raise ManifestError(f"{name}: not YAML: {e}") from e
    texts = _texts(content, len(bodies))
    documents = [
        Document(name, i, body, text, aliased=aliases.shared(body))
        for i, (body, text) in enumerate(zip(bodies, texts, strict=True), start=1)
    ]
    indented = re.search(r"^( *)[^\s#-][^\n]*:[ ]*\n\1 +- ", content, re.MULTILINE) is not None
    return Source(name, content, documents, indented)


def _texts(content: str, count: int) -> list[str]:
    """The text of each document; all empty where the markers are ambiguous.

    ``---`` at the start of any line is a marker (YAML 1.2, c-forbidden).
    """
    texts = re.split(r"^(?=---(?:\s|$))", content, flags=re.MULTILINE)
    if len(texts) > 1 and _HEAD.fullmatch(texts[0]):
        texts[:2] = ["".join(texts[:2])]
    return texts if len(texts) == count else [""] * count


def _yaml(*, indented_lists: bool = False) -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 1 << 16  # never fold a line that its author did not fold
    if indented_lists:
        yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def pods(document: Document) -> Iterator[PodIn]:
    """Every pod and pod template in a document, including those in a List."""
    for whole in objects(document, document.body):
        below = TEMPLATES.get(whole.kind)
        if below is not None and (found := mapping_at(whole.raw, *below)) is not None:
            yield replace(whole, path=(*whole.path, *below), raw=found)


def mapping_at(node: object, *path: str) -> MutableMapping[str, Any] | None:
    """The mapping below a node; None where there is none."""
    for key in path:
        node = node.get(key) if isinstance(node, MutableMapping) else None
    return node if isinstance(node, MutableMapping) else None


def dotted(path: Iterable[str | int]) -> str:
    """A path as the API server writes it: ``spec.containers[0]``."""
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return "".join(parts).removeprefix(".")


def objects(document: Document, body: object, at: Place = ()) -> Iterator[PodIn]:
    """Every object in a document, including those in a List.

    Args:
        document: The document.
        body: Its body, or a node in it.
        at: The place of that node.
    """
    kind = body.get("kind") if isinstance(body, MutableMapping) else None
    if not isinstance(body, MutableMapping) or not isinstance(kind, str):
        return
    items = body.get("items")
    if kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            yield from objects(document, item, (*at, "items", index))
        return
    names = mapping_at(body, "metadata") or {}
    name = names.get("name") or names.get("generateName") or "(no name)"
    namespace = names.get("namespace")
    yield PodIn(
        document, kind, str(name), str(namespace) if namespace is not None else None, at, body
    )


def to_yaml(source: Source, *, verbatim: bool = True) -> str:
    """A file's documents as YAML, comments and order kept.

    Args:
        source: The file.
        verbatim: Whether unchanged documents keep the text of the file; otherwise all have the
            same layout, so that a diff shows only changes.
    """
    if verbatim and not any(d.changed or _is_json(d.body) for d in source.documents):
        return source.content
    yaml = _yaml(indented_lists=source.indented_lists)
    out = io.StringIO()
    for document in source.documents:
        if verbatim and document.text and not (document.changed or _is_json(document.body)):
            out.write(document.text)
            continue
        out.write(_marker(document, many=len(source.documents) > 1))
        if document.body is not None:
            yaml.dump(_block(document.body), out)
    return out.getvalue()


def _marker(document: Document, *, many: bool) -> str:
    """The text before a rewritten document: its own marker, or a new one."""
    if head := re.match(_HEAD.pattern + r"---[ \t]*(?:#[^\n]*)?\n", document.text):
        return head[0]
    if document.text and not document.text.startswith("---"):
        return ""
    return "---\n" if many else ""


def _is_json(body: object) -> bool:
    return isinstance(body, CommentedMap) and bool(body.fa.flow_style())


def _block(body: object) -> object:
    return _quoted(json.loads(json.dumps(body))) if _is_json(body) else body


def _quoted(node: Any) -> Any:
    """The texts of JSON that YAML 1.1 takes for booleans, in quotes."""
    if isinstance(node, dict):
        return {_quoted(key): _quoted(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_quoted(value) for value in node]
    return SingleQuotedScalarString(node) if is_boolean(node) else node


def is_boolean(node: object) -> bool:
    """True for a text without quotes that Kubernetes reads as a boolean."""
    return type(node) is str and _BOOLEANS.fullmatch(node) is not None


def to_json(sources: Iterable[Source]) -> str:
    """All documents as JSON: one object, or a List of several."""
    bodies = [_plain(d.body) for source in sources for d in source.documents if d.body is not None]
    body = bodies[0] if len(bodies) == 1 else {"apiVersion": "v1", "kind": "List", "items": bodies}
    return json.dumps(body, indent=2, default=str) + "\n"


def _plain(node: Any) -> Any:
    """Convert to plain JSON types, with numbers as Kubernetes reads them.

    Kubernetes reads YAML 1.1, where a leading zero means octal, as in file modes.
    """
    if isinstance(node, MutableMapping):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    width = getattr(node, "_width", None) if type(node) is ScalarInt else None
    if width is not None and len(str(node)) < width and _OCTAL.fullmatch(str(node)):
        return int(str(node), 8)
    return node
