"""What is in the image: packages of the distribution, and what of packages stays out."""

import re
import struct
from typing import Final

from scripts.image.tree import Entry, Tree

PYTHON: Final = "3.11"
"""Of Debian 12, whose packages requirements/debian.txt locks."""
GLIBC_MINOR: Final = 36
"""Debian 12 has glibc 2.36, so wheels for manylinux_2_36 and older run."""
SITE: Final = f"usr/local/lib/python{PYTHON}/dist-packages"
"""Debian's interpreter searches it without being told, also with -I."""

MULTIARCH: Final = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
LOADER: Final = {"amd64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}
"""In the folder of libraries; the names that programs ask for are links to it."""

DEBIAN: Final = (
    "base-files",  # says which Debian it is, and holds the licences that the others refer to
    "ca-certificates",  # a kubeconfig may name an API server or issuer with a public certificate
    "gcc-12-base",  # the copyright of libgcc-s1 and libstdc++6
    "libc6",
    "libexpat1",  # the interpreter is linked with it
    "libffi8",  # ctypes, through which NVML is called
    "libgcc-s1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libssl3",
    "libstdc++6",  # grpcio and numpy
    "python3.11-minimal",
    "zlib1g",
)
EXTRAS: Final = ("node", "scheduler")
"""Of pyproject.toml: one image serves every part."""

_LIBRARY = f"usr/lib/python{PYTHON}".replace(".", r"\.")
_WHEELS = SITE.replace(".", r"\.")
_MODULES = (
    "_aix_support|_bootsubprocess|_osx_support|antigravity|cgi|cgitb|crypt|curses|dbm|distutils|"
    "doctest|idlelib|imaplib|lib2to3|mailbox|nntplib|poplib|pydoc_data|smtpd|smtplib|sqlite3|"
    "telnetlib|test|this|tkinter|turtle|turtledemo|venv|xmlrpc"
)
_COMPILED = (
    r"_bz2|_crypt|_ctypes_test|_curses\w*|_dbm|_lzma|_sqlite3|_test\w*|_uuid|_?xx\w*|audioop|nis|"
    "ossaudiodev|readline"
)
_C_LIBRARIES = "BrokenLocale|c_malloc_debug|memusage|nss_compat|nss_hesiod|pcprofile|thread_db"

LEFT_OUT: Final = {
    "of Debian: documents but the copyrights, and what serves people at a shell": (
        "usr/share/(?!doc/|common-licenses/).*",
        "usr/share/doc/[^/]+/(?!copyright$).*",
        "usr/sbin/.*",
        r"etc/(ca-certificates|dpkg|python[\d.]*|update-motd\.d)/.*",
        r"etc/(ca-certificates\.conf|issue.*)",
        r"usr/lib/binfmt\.d/.*",
        rf"{_LIBRARY}/(EXTERNALLY-MANAGED|sitecustomize\.py)",
    ),
    "of the C library: character sets of iconv, which Python does not use; developers' tools": (
        "usr/lib/[^/]+/(gconv|audit)/.*",
        rf"usr/lib/[^/]+/lib({_C_LIBRARIES})\.so.*",
    ),
    "of OpenSSL: engines for hardware": ("usr/lib/[^/]+/engines-3/.*",),
    "of the interpreter: modules for terminals, mail, databases and its own tests, and those "
    "whose libraries are left out": (
        rf"{_LIBRARY}/({_MODULES})(\.py|/.*)",
        rf"{_LIBRARY}/lib-dynload/({_COMPILED})\.cpython-.*",
    ),
    "of wheels: tests": (
        rf"{_WHEELS}/(.*/)?(tests|testing)/.*",
        rf"{_WHEELS}/.*/(conftest|\w+_test|_testbase)\.py",
    ),
    "of wheels: sources of compiled modules, types, documents, what pip reads": (
        rf"{_WHEELS}/.*\.(pyi|pyx|pxd|pxi|pyx\.in|c|h|hash|a|lib)",
        rf"{_WHEELS}/(kubernetes_asyncio/)?(CHANGELOG|README)\.md",
        rf"{_WHEELS}/.*/py\.typed",
        rf"{_WHEELS}/[^/]+\.dist-info/(RECORD.*|WHEEL|top_level\.txt)",
    ),
    "of numpy: compilers' tools": (
        rf"{_WHEELS}/numpy/(distutils|f2py|_pyinstaller|_core/include|_core/lib|random/lib)/.*",
        rf"{_WHEELS}/numpy/_core/_\w+_tests\..*",
    ),
    "of kubernetes_asyncio: generated models and APIs; the kubeconfig loader uses none": (
        rf"{_WHEELS}/kubernetes_asyncio/client/(api|models)/(?!__init__).*",
        rf"{_WHEELS}/kubernetes_asyncio/leaderelection/.*",
    ),
}
"""Regular expressions of whole paths by the reason why they stay out."""

_LEFT_OUT = re.compile("|".join(pattern for group in LEFT_OUT.values() for pattern in group))
_GENERATED_IMPORTS = tuple(f"from kubernetes_asyncio.client.{x}." for x in ("api", "models"))


def pruned(tree: Tree) -> Tree:
    """What stays of a tree, with smaller contents where that changes no behaviour."""
    return {
        name: _smaller(name, entry)
        for name, entry in tree.items()
        if not _LEFT_OUT.fullmatch(name)
    }


def merged(name: str) -> str:
    """Where a package's file lies in a tree whose /bin, /sbin and /lib* are links into /usr."""
    head, _, rest = name.partition("/")
    return f"usr/{name}" if rest and head in {"bin", "sbin", "lib", "lib64"} else name


def _smaller(name: str, entry: Entry) -> Entry:
    if name.startswith(f"{SITE}/kubernetes_asyncio/client/") and name.endswith("/__init__.py"):
        kept = [
            line
            for line in entry.content.decode().splitlines(keepends=True)
            if not line.startswith(_GENERATED_IMPORTS)
        ]
        return Entry(entry.purl, "".join(kept).encode())
    if name.startswith(SITE) and ".so" in name:
        return Entry(entry.purl, without_sections(entry.content), entry.mode)
    return entry


def without_sections(library: bytes) -> bytes:
    """A shared library without what the loader does not read: symbols and debug information.

    The loader maps segments (program headers); sections are for linkers and debuggers. What lies
    behind the last segment's bytes is cut off, and the header says that there are no sections.

    Source: System V ABI, ELF-64: e_phoff at byte 32, e_shoff 40, e_phentsize 54, e_phnum 56,
    e_shentsize 58, e_shnum 60, e_shstrndx 62; p_offset at byte 8 of a program header, p_filesz 32.
    """
    if library[:6] != b"\x7fELF\x02\x01":  # 64 bits, little endian
        return library
    (offset,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    end = offset + size * count
    for header in range(offset, end, size):
        start, length = (struct.unpack_from("<Q", library, header + at)[0] for at in (8, 32))
        end = max(end, start + length)
    cut = bytearray(library[:end])
    struct.pack_into("<Q", cut, 40, 0)
    struct.pack_into("<HHH", cut, 58, 64, 0, 0)
    return bytes(cut)
