"""Write deploy/ from the chart, and what of the chart follows from the programs' settings.

Run ``make manifests`` after a change of the chart, of its values or of a setting. Tests compare
all of it; the manifests are compared where Helm is found (``make cluster-assets`` builds it).
"""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gpu_fraction.domain.backends import BACKENDS
from gpu_fraction.settings.declaration import options_of
from tests.cluster.harness.binaries import find_binaries

ROOT: Final = Path(__file__).parents[1]
DEPLOY: Final = ROOT / "deploy"
CHART: Final = DEPLOY / "chart"
PROGRAMS: Final = ("webhook", "controller", "scheduler-extender", "node-daemon")

RESERVED: Final = frozenset(
    (
        *("host", "port", "kubeconfig", "kube_context", "backend", "system_users"),
        *("tls_cert", "tls_key", "client_ca", "client_names", "token_file"),
        *("cert_dir", "cert_namespace", "cert_service", "cert_mutating", "cert_validating"),
        *("manage_certificates", "replica_name", "replica_uid", "lease_name", "lease_namespace"),
        *("dra", "mode", "node_name", "isolation", "kubelet_dir", "state_dir", "cdi_dir"),
        *("host_cdi_dirs", "mps_dir", "mps_shm_dir", "hami_library_dir"),
        *("simulated_cards", "simulated_model", "simulated_memory"),
    )
)
"""Settings for which the chart has values of its own, or that fit its mounts and names."""

Values = Mapping[str, Any]
COMMON: Final[Values] = {
    "crds": {"keep": False},  # an annotation for Helm alone
    "namespace": {"create": True},
    # Named by whoever installs: a scheduler of another version than the cluster's would misbehave.
    "scheduler": {"image": {"tag": "your-clusters-version"}},
}
DRA: Final[Values] = {"backend": "dra", "dra": {"enabled": True}}
CERT_MANAGER: Final[Values] = {"certificates": {"mode": "cert-manager"}}
HAMI_CORE: Final[Values] = {"nodeDaemon": {"isolation": ["cgroup", "hami-core"]}}

FOLDERS: Final = (
    ({}, ("crd", "rbac", "webhook", "controller", "admission-policy", "scheduler", "node-daemon")),
    (DRA, ("dra", "claims")),
)
"""Values, and the chart's folders whose templates become a file each, by the same names."""

WHOLE: Final = (
    (
        "cert-manager/manifests.yaml",
        CERT_MANAGER,
        ("crd", "rbac", "webhook", "controller", "admission-policy", "cert-manager"),
    ),
    ("dra/node-daemon.yaml", DRA, ("node-daemon",)),
    ("node-daemon-hami-core/manifests.yaml", HAMI_CORE, ("node-daemon",)),
)
"""Files that hold all templates of some folders, with their values."""

_SOURCE: Final = re.compile(r"^# Source: gpu-fraction/templates/(.*)\n", re.MULTILINE)
_HELMS: Final = re.compile(
    r"^ +(?:helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", re.MULTILINE
)
"""Labels that say that Helm has installed an object."""


def settings(program: str) -> list[str]:
    """The settings of a program that the value ``settings`` may hold."""
    module = importlib.import_module(f"gpu_fraction.cli.{program.replace('-', '_')}")
    return sorted({option.name for option in options_of(module.Settings)} - RESERVED)


def settings_template() -> str:
    """The chart's template with the settings of each program."""
    known = {program: " ".join(settings(program)) for program in PROGRAMS}
    return (
        "{{- /* The settings that a program knows; written by make manifests. */ -}}\n"
        '{{- define "gpu-fraction.settings" -}}\n'
        f"{{{{- get (mustFromJson `{json.dumps(known, indent=2)}`) . -}}}}\n"
        "{{- end -}}\n"
    )


def schema() -> str:
    """values.schema.json with today's settings and backends."""
    found = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    known = sorted({name for program in PROGRAMS for name in settings(program)})
    found["properties"]["backend"]["enum"] = list(BACKENDS)
    found["properties"]["settings"]["properties"] = {
        name: {"$ref": "#/definitions/setting"} for name in known
    }
    return json.dumps(found, indent=2) + "\n"


def values_page() -> str:
    """docs/values.md: every value, its default and the comment above it."""
    rows = "".join(
        f"| `{name}` | `{default}` | {meaning} |\n" for name, default, meaning in _values()
    )
    return (
        "# Values of the chart\n\n"
        "Helm refuses a value that is not here. `make manifests` generates this page from\n"
        "`deploy/chart/values.yaml`.\n\n"
        f"| value | default | meaning |\n|---|---|---|\n{rows}"
    )


def _values() -> Iterator[tuple[str, str, str]]:
    """Name, default and the comment above, of each value or of the first one of a group."""
    path: list[str] = []
    said: list[str] = []
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        key, _, value = line.strip().partition(":")
        if key.startswith("#"):
            said.append(line.strip().removeprefix("# "))
            continue
        if key:
            path[(len(line) - len(line.lstrip())) // 2 :] = [key]
        if value:
            yield ".".join(path), value.strip(), " ".join(said)
        if value or not key:
            said = []


def manifests(helm: Path) -> dict[str, str]:
    """The files below ``deploy/`` by their names, as the chart has them.

    Raises:
        CalledProcessError: Helm refuses the chart.
    """
    made: dict[str, str] = {}
    for values, folders in FOLDERS:
        made |= of(folders, rendered(helm, values))
    for name, values, folders in WHOLE:
        made[name] = "---\n".join(of(folders, rendered(helm, values)).values())
    head = "# Written by make manifests from deploy/chart.\n"
    return {name: head + text for name, text in sorted(made.items())}


def of(folders: Sequence[str], files: Mapping[str, str]) -> dict[str, str]:
    """Those of the files that are in one of the folders."""
    return {name: text for name, text in files.items() if name.partition("/")[0] in folders}


def rendered(helm: Path, values: Values) -> dict[str, str]:
    """The documents of each template, without what is Helm's own."""
    done = subprocess.run(
        [
            *(helm, "template", "gpu-fraction", CHART, "--namespace=gpu-fraction-system"),
            *("--kube-version=1.37.0", "--values=-"),
        ],
        input=json.dumps({**COMMON, **values}),
        capture_output=True,
        text=True,
        check=True,
    )
    files: dict[str, list[str]] = {}
    for document in re.split(r"^---\n", done.stdout, flags=re.MULTILINE):
        if match := _SOURCE.match(document):
            text = _HELMS.sub("", document[match.end() :]).strip("\n") + "\n"
            files.setdefault(match[1], []).append(re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))
    return {name: "---\n".join(documents) for name, documents in files.items()}


def generated() -> dict[Path, str]:
    """What needs no Helm, by file."""
    return {
        CHART / "templates" / "_settings.tpl": settings_template(),
        CHART / "values.schema.json": schema(),
        ROOT / "docs" / "values.md": values_page(),
    }


def main() -> int:
    """Write everything; the exit status is 1 where Helm is missing or refuses the chart."""
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
    helm = find_binaries().paths.get("helm4")
    if helm is None:
        sys.stderr.write("helm4 is missing: `make cluster-assets` builds it\n")
        return 1
    try:
        made = manifests(helm)
    except subprocess.CalledProcessError as e:
        sys.stderr.write(e.stderr)
        return 1
    for name, text in made.items():
        (DEPLOY / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
