"""Builds programs out of Go modules, with the ordinary settings of the machine's Go.

Each build works in a module of its own in a temporary folder, so that what it needs is resolved
and verified by Go's module proxy and checksum database, and nothing is installed.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.assets.steps import AssetError, capture, run
from tests.cluster.harness.binaries import KUBERNETES

_BUILD_TIMEOUT_S = 3600
"""The API server takes six minutes on two idle cores; chosen: ten times that."""

_REVISION = 1
"""Of the commands below; a higher one has all programs built again."""

_STAGING = re.compile(r"^\s*(?:replace )?(k8s\.io/\S+) => \./staging/\S+$", re.MULTILINE)
"""A module that lies in Kubernetes' own tree and is published beside it as v0.x."""

_LOCAL = re.compile(r"^.* => \.\.?/.*$", re.MULTILINE)
"""A replacement by a folder of the module's own tree, which a build outside it does not have."""


@dataclass(frozen=True, slots=True)
class GoBuild:
    """Programs of one module.

    Attributes:
        module: its path.
        version: with the leading ``v``.
        programs: package below the module by the program's name.
        values: of string variables, by their names with package, set when linking.
        tags: build constraints.
        env: further variables of the build; cgo is off unless they turn it on.
        static: whether the C linker is told to link statically; for cgo alone.
    """

    module: str
    version: str
    programs: Mapping[str, str]
    values: Mapping[str, str] = field(default_factory=dict)
    tags: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    static: bool = False

    @property
    def recipe(self) -> str:
        """Changes when the programs would."""
        return f"{_REVISION} {self} {go_release()}"


def go_release() -> str:
    """Such as ``go1.26.8``.

    Raises:
        AssetError: there is no Go.
    """
    if shutil.which("go") is None:
        raise AssetError("Go 1.26 or newer is missing: the programs are built from Go modules")
    return capture(["go", "env", "GOVERSION"]).strip()


def build(what: GoBuild, folder: Path, to: Path, log: Path) -> None:
    """Builds the programs into ``to``.

    Args:
        what: the module and its programs.
        folder: for the module of the build; removed at the end.
        to: where the programs go.
        log: output of the commands.

    Raises:
        AssetError: a command failed.
    """
    folder.mkdir()
    (folder / "main.go").write_text("package main\n")
    (folder / "go.mod").write_text(_go_mod(what))
    env = {"GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off", "CGO_ENABLED": "0", **what.env}
    values = [f"-X {name}={value}" for name, value in what.values.items()]
    flags = " ".join(["-s", "-w", *values, *(["-extldflags=-static"] if what.static else [])])
    for name, package in what.programs.items():
        run(
            ["nice", "-n", "10", "go", "build", "-trimpath", f"-tags={what.tags}"]
            + [f"-ldflags={flags}", "-o", str(to / name), f"{what.module}{package}"],
            log=log,
            cwd=folder,
            env=env,
            timeout_s=_BUILD_TIMEOUT_S,
        )
    shutil.rmtree(folder)


def kubernetes(version: str) -> GoBuild:
    """Kubernetes' own programs; without the values a server calls itself v0.0.0."""
    major, minor, _ = version.split(".", 2)
    names = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    return GoBuild(
        "k8s.io/kubernetes",
        f"v{version}",
        {name: f"/cmd/{name}" for name in KUBERNETES} | {"agnhost": "/test/images/agnhost"},
        {
            f"k8s.io/{package}.{name}": value
            for package in ("component-base/version", "client-go/pkg/version")
            for name, value in names.items()
        },
    )


def _go_mod(what: GoBuild) -> str:
    """The build's go.mod: what the module's own file requires.

    Kubernetes requires its staging modules as v0.0.0 and replaces them by folders of its tree;
    here they are replaced by what is published. Other modules require what is published.
    """
    download = capture(["go", "mod", "download", "-json", f"{what.module}@{what.version}"])
    own = Path(json.loads(download)["GoMod"]).read_text()
    for staging in _STAGING.findall(own):
        published = what.version.replace("v1.", "v0.", 1)
        own = re.sub(rf"(\s{re.escape(staging)}) v0\.0\.0\b", rf"\1 {published}", own)
        own = re.sub(rf"({re.escape(staging)} =>) \./\S+", rf"\1 {staging} {published}", own)
    own = _LOCAL.sub("", own)
    own = re.sub(r"^module \S+$", "module build", own, count=1, flags=re.MULTILINE)
    return f"{own}\nrequire {what.module} {what.version}\n"
