"""Manifests as people keep them: files, folders, several documents, Lists, comments."""

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

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
"""Where each kind keeps its pod."""

__all__ = ["Document", "ManifestError", "PodIn", "Source", "pods", "read", "to_json", "to_yaml"]


class ManifestError(Exception):
    """A file cannot be read as manifests; the message names the file and the place."""


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document.

    Attributes:
        source: The file's name as given, ``-`` for standard input.
        number: Its position in the file, from 1.
        body: The object, with its comments.
    """

    source: str
    number: int
    body: Any


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its documents and how its author indents lists."""

    name: str
    documents: list[Document]
    indented_lists: bool


@dataclass(frozen=True, slots=True)
class PodIn:
    """A pod or pod template inside a document.

    Attributes:
        document: The document.
        kind: The workload's kind.
        name: The workload's name, or its generateName.
        namespace: Where it says it belongs, None where it does not.
        path: Keys from the document to the pod.
        raw: The pod itself, part of the document.
    """

    document: Document
    kind: str
    name: str
    namespace: str | None
    path: tuple[str | int, ...]
    raw: MutableMapping[str, Any]

    def __str__(self) -> str:
        return f"{self.document.source}:{self.document.number} {self.kind}/{self.name}"


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
        raise ManifestError(f"{folder}: holds no {', '.join(SUFFIXES)} file")
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
    documents = [Document(name, i, body) for i, body in enumerate(bodies, start=1)]
    indented = re.search(r"^( *)[^\s#-][^\n]*:[ ]*\n\1 +- ", content, re.MULTILINE) is not None
    return Source(name, documents, indented)


def _yaml(*, indented_lists: bool = False) -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 1 << 16  # never fold a line that its author did not fold
    if indented_lists:
        yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def pods(document: Document) -> Iterator[PodIn]:
    """Every pod in a document, also those of a List."""
    yield from _pods(document, document.body, ())


def _pods(document: Document, body: object, at: tuple[str | int, ...]) -> Iterator[PodIn]:
    if not isinstance(body, MutableMapping):
        return
    kind = body.get("kind")
    items = body.get("items")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            yield from _pods(document, item, (*at, "items", index))
        return
    if not isinstance(kind, str) or kind not in TEMPLATES:
        return
    found: object = body
    for key in TEMPLATES[kind]:
        found = found.get(key) if isinstance(found, MutableMapping) else None
    if not isinstance(found, MutableMapping):
        return
    metadata = body.get("metadata")
    names = metadata if isinstance(metadata, MutableMapping) else {}
    name = names.get("name") or names.get("generateName") or "(no name)"
    namespace = names.get("namespace")
    yield PodIn(
        document,
        kind,
        str(name),
        str(namespace) if namespace is not None else None,
        (*at, *TEMPLATES[kind]),
        found,
    )


def to_yaml(source: Source) -> str:
    """A file's documents as YAML, comments and order kept."""
    yaml = _yaml(indented_lists=source.indented_lists)
    out = io.StringIO()
    many = len(source.documents) > 1
    for document in source.documents:
        if many:
            out.write("---\n")
        if document.body is not None:
            yaml.dump(_block(document.body), out)
    return out.getvalue()


def _block(body: object) -> object:
    """JSON input comes out as YAML people can read."""
    if isinstance(body, CommentedMap) and body.fa.flow_style():
        return json.loads(json.dumps(body))
    return body


def to_json(sources: Iterable[Source]) -> str:
    """All documents as JSON: one object, or a List of several."""
    bodies = [d.body for source in sources for d in source.documents if d.body is not None]
    body = bodies[0] if len(bodies) == 1 else {"apiVersion": "v1", "kind": "List", "items": bodies}
    return json.dumps(body, indent=2, default=str) + "\n"
