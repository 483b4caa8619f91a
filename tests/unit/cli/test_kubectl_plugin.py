"""What makes a kubectl plugin of the command: names, completion, libraries, and a watch."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gpu_fraction.cli import completion
from gpu_fraction.cli.main import COMMANDS
from gpu_fraction.sandbox.apiserver import ApiServer
from tests.builders.views import gpu_pod, server, small_cluster
from tests.support.access import kubeconfig, serving

ROOT = Path(__file__).parents[3]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}

SERVER_LIBRARIES = (
    *("grpc", "google.protobuf", "pynvml", "numpy", "cryptography", "uvloop"),
    *("aiohttp.web", "gpu_fraction.webhook", "gpu_fraction.scheduler", "gpu_fraction.node_daemon"),
    *("gpu_fraction.quota", "gpu_fraction.certs", "gpu_fraction.claims"),
)
"""Of daemons; most are not installed beside a plugin, or take long to import."""

NOTICES_CTRL_C = ("env", "--default-signal=INT")
"""What a shell starts in the background ignores it, and so would all that the tests start."""


def script(folder: Path, name: str) -> Path:
    """The program that an installation makes of an entry point."""
    module, _, function = SCRIPTS[name].partition(":")
    path = folder / name
    path.write_text(
        f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
        f"sys.exit({function}())\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def api() -> ApiServer:
    """A server with the small cluster."""
    return server(*small_cluster())


@pytest.fixture
def file(api: ApiServer, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig for it."""
    with serving(api) as url:
        yield kubeconfig(tmp_path, url)


def test_the_plugin_names_itself_as_users_call_it(tmp_path: Path) -> None:
    """In usage, in examples and in the hint below."""
    plugin = script(tmp_path, "kubectl-gpu_fraction")
    for words in ((), ("status",)):
        done = subprocess.run(
            [plugin, *words, "--help"], capture_output=True, text=True, check=True, env=ENVIRON
        )
        assert done.stdout.startswith(
            f"usage: kubectl gpu-fraction{''.join(' ' + w for w in words)}"
        )
        assert "\n  gpu-fraction" not in done.stdout
        assert "kubectl gpu-fraction" in done.stdout.partition("\n\n")[2]


def test_kubectl_finds_the_plugin_under_its_name() -> None:
    """An underscore in the file is a hyphen on the command line."""
    assert SCRIPTS["kubectl-gpu_fraction"] == SCRIPTS["gpu-fraction"]
    assert "kubectl_complete-gpu_fraction" in SCRIPTS


LIBRARIES = """
import json, sys
from gpu_fraction.cli.main import main
sys.argv = ["gpu-fraction", *sys.argv[1:]]
try:
    code = main()
except SystemExit as e:
    code = e.code
sys.stderr.write(json.dumps([code, sorted(sys.modules)]))
"""


def loaded(*words: object) -> tuple[int, list[str]]:
    """The exit code and the modules that a command loads."""
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRON,
    )
    code, modules = json.loads(done.stderr[done.stderr.rindex("[0, ") :])
    return code, modules


@pytest.mark.parametrize("name", ["status", "quota", "top"])
def test_no_library_of_a_server_is_loaded_to_ask_one(name: str, file: Path) -> None:
    """A plugin starts quickly, and works without them."""
    code, modules = loaded(name, "-A", f"--kubeconfig={file}")
    assert code == 0
    assert not [one for one in SERVER_LIBRARIES if one in modules]


@pytest.mark.parametrize(
    ("words", "others"),
    [
        (("--help",), {"msgspec", "ruamel.yaml", "asyncio", "gpu_fraction.domain.backends"}),
        (("status", "--help"), {"aiohttp", "asyncio", "gpu_fraction.domain.backends"}),
        (
            ("mutate", "-f", ROOT / "examples" / "training.yaml", "--gpu-memory-mib=80Gi"),
            {"aiohttp", "kubernetes_asyncio", "prometheus_client", "structlog"},
        ),
    ],
    ids=lambda words: str(words[0]) if isinstance(words, tuple) else "",
)
def test_what_needs_no_cluster_loads_no_client(
    words: tuple[object, ...], others: set[str]
) -> None:
    """Help and offline work answer at once."""
    code, modules = loaded(*words)
    assert code == 0
    assert not {*others, *SERVER_LIBRARIES} & {*modules}


@pytest.mark.parametrize(
    ("words", "some", "directive"),
    [
        (("st",), ["status"], 4),
        (("",), list(COMMANDS), 4),
        (("status", "--by", ""), ["card", "node", "model", "namespace", "pod"], 4),
        (("status", "--by=n"), ["--by=node", "--by=namespace"], 4),
        (("status", "-o", "j"), ["json"], 4),
        (("status", "--wa"), ["--watch"], 4),
        (("status", "--kubeconfig", ""), [], 0),
        (("mutate", "-f", ""), [], 0),
        (("certs", "r"), ["rotate"], 4),
        (("status", "--token", ""), [], 4),
    ],
)
def test_words_are_completed(words: tuple[str, ...], some: list[str], directive: int) -> None:
    """With descriptions, and files where a file is wanted."""
    found, number = completion.candidates(words)
    assert [value for value, _ in found] == some
    assert number == directive


def test_kubectl_reads_completions_line_by_line(tmp_path: Path, file: Path) -> None:
    """Names of the cluster too; the last line is cobra's directive."""
    program = script(tmp_path, "kubectl_complete-gpu_fraction")
    done = subprocess.run(
        [program, "status", f"--kubeconfig={file}", "-n", "team"],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRON,
    )
    assert done.stdout.splitlines() == ["team-a", "team-b", ":4"]
    offline = subprocess.run(
        [program, "status", "--kubeconfig=/nowhere", "-n", ""],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRON,
    )
    assert (offline.stdout, offline.stderr) == (":4\n", "")


def test_the_krew_manifest_is_one() -> None:
    """The fields that krew asks for, and the program that an archive holds."""
    text = (ROOT / "deploy" / "krew" / "gpu-fraction.yaml").read_text()
    manifest = YAML(typ="safe").load(io.StringIO(text))
    assert manifest["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2"
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("Plugin", "gpu-fraction")
    spec = manifest["spec"]
    assert len(spec["shortDescription"]) <= 50
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert spec["version"] == f"v{version}"
    for platform in spec["platforms"]:
        assert platform["bin"] == "kubectl-gpu_fraction"
        assert {"uri", "sha256", "selector"} <= platform.keys()
    assert "Python 3.11" in spec["caveats"]


def _until(read: Callable[[], str], wanted: str) -> str:
    """What comes until a text is there; fails after a while."""
    found, deadline = "", time.monotonic() + 40
    while wanted not in found:
        assert time.monotonic() < deadline, found
        found += read()
    return found


def test_a_watch_into_a_pipe_prints_each_change(api: ApiServer, file: Path) -> None:
    """And nothing while nothing changes; Ctrl-C ends it."""
    child = subprocess.Popen(
        [*NOTICES_CTRL_C, sys.executable, "-m", "gpu_fraction.cli.main", "status", "--watch=1"]
        + ["--by=pod", "-A", f"--kubeconfig={file}"],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRON,
    )
    try:
        assert child.stdout is not None
        pipe = child.stdout
        _until(pipe.readline, "waiting: team-a/next")
        listed = len(api.calls)
        while len(api.calls) < listed + 12:  # at least two more readings of five lists each
            time.sleep(0.05)
        api.add(gpu_pod("later", namespace="team-b"))
        after = _until(pipe.readline, "waiting: team-b/later")
        assert after.count("NAMESPACE") == 1
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 130
    finally:
        child.kill()
        child.wait()
        pipe.close()


def test_a_watch_on_a_terminal_stays_in_place(api: ApiServer, file: Path) -> None:
    """On the other screen, which it leaves at the end; a failure keeps the last answer."""
    terminal, side = pty.openpty()
    child = subprocess.Popen(
        [*NOTICES_CTRL_C, sys.executable, "-m", "gpu_fraction.cli.main", "status", "--watch=1"]
        + [f"--kubeconfig={file}"],
        stdout=side,
        stderr=side,
        env={**ENVIRON, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(side)

    def read() -> str:
        ready, _, _ = select.select([terminal], [], [], 1)
        return os.read(terminal, 65536).decode(errors="replace") if ready else ""

    try:
        first = _until(read, "team-a/next")
        assert "\x1b[?1049h" in first
        assert "\x1b[32m" in first
        api.add(gpu_pod("later", namespace="team-b"))
        _until(read, "team-b/later")
        child.send_signal(signal.SIGINT)
        _until(read, "\x1b[?1049l")
        assert child.wait(20) == 130
    finally:
        child.kill()
        child.wait()
        os.close(terminal)
