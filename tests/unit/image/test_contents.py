"""What is in the image, and what is taken out of its parts."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.image.contents import SITE, merged, pruned, without_sections
from scripts.image.tree import Entry

LIBRARY = "usr/lib/python3.11"


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        ("usr/share/doc/libc6/copyright", True),
        ("usr/share/doc/libc6/changelog.Debian.gz", False),
        ("usr/share/doc/ca-certificates/examples/debian/copyright", False),
        ("usr/share/common-licenses/GPL-3", True),
        ("usr/share/lintian/overrides/libc6", False),
        ("usr/lib/x86_64-linux-gnu/libc.so.6", True),
        ("usr/lib/x86_64-linux-gnu/gconv/UTF-16.so", False),
        (f"{LIBRARY}/asyncio/events.py", True),
        (f"{LIBRARY}/test/support/__init__.py", False),
        (f"{LIBRARY}/testing.py", True),
        (f"{LIBRARY}/sqlite3/dbapi2.py", False),
        (f"{LIBRARY}/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", True),
        (f"{LIBRARY}/lib-dynload/_sqlite3.cpython-311-x86_64-linux-gnu.so", False),
        (f"{SITE}/numpy/_core/tests/test_half.py", False),
        (f"{SITE}/numpy/linalg/_linalg.py", True),
        (f"{SITE}/numpy-2.4.6.dist-info/licenses/numpy/_core/include/LICENSE.txt", True),
        (f"{SITE}/numpy-2.4.6.dist-info/licenses/numpy/random/LICENSE.md", True),
        (f"{SITE}/numpy-2.4.6.dist-info/METADATA", True),
        (f"{SITE}/numpy-2.4.6.dist-info/RECORD", False),
        (f"{SITE}/kubernetes_asyncio/client/models/v1_pod.py", False),
        (f"{SITE}/kubernetes_asyncio/client/models/__init__.py", True),
        (f"{SITE}/kubernetes_asyncio/config/kube_config_test.py", False),
        (f"{SITE}/uvloop/loop.pyx", False),
        (f"{SITE}/gpu_fraction/kubelet_api/dra_v1_pb2.pyi", False),
        (f"{SITE}/gpu_fraction/domain/request.py", True),
    ],
)
def test_what_stays(name: str, *, stays: bool) -> None:
    """Licences, modules and libraries stay; documents, tests, sources of extensions do not."""
    assert bool(pruned({name: Entry("pkg:x", b"")})) == stays


def test_imports_of_models_that_are_left_out_go_too() -> None:
    """The package's front names what is there, in its order."""
    name = f"{SITE}/kubernetes_asyncio/client/__init__.py"
    text = (
        "from kubernetes_asyncio.client.api.core_v1_api import CoreV1Api\n"
        "from kubernetes_asyncio.client.api_client import ApiClient\n"
        "from kubernetes_asyncio.client.models.v1_pod import V1Pod\n"
    )
    kept = pruned({name: Entry("pkg:x", text.encode())})[name].content
    assert kept == b"from kubernetes_asyncio.client.api_client import ApiClient\n"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("usr/lib/os-release", "usr/lib/os-release"),
        ("etc/os-release", "etc/os-release"),
    ],
)
def test_one_folder_of_libraries(name: str, place: str) -> None:
    """As on an installed Debian, /lib and the others are links into /usr."""
    assert merged(name) == place


def test_a_library_without_sections_loads(tmp_path: Path) -> None:
    """What is cut off is not read: the smaller library is imported and works."""
    spec = importlib.util.find_spec("msgspec._core")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin)
    package = tmp_path / "msgspec"
    shutil.copytree(library.parent, package)
    smaller = without_sections(library.read_bytes())
    assert len(smaller) < library.stat().st_size
    (package / library.name).write_bytes(smaller)
    script = (
        "import msgspec, sys; sys.stdout.write(msgspec.__file__ + str(msgspec.json.decode('[1]')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{package / '__init__.py'}[1]"


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(60)])
def test_other_files_stay_as_they_are(content: bytes) -> None:
    """Scripts, and libraries of 32 bits."""
    assert without_sections(content) == content
