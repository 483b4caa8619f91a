"""Packages fetched and unpacked beside the system: nothing is installed, no state is changed."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.assets.sources import private_list, read_sources
from tests.cluster.assets.steps import AssetError, capture, run

_DROPPED = ("Dir", "DPkg", "APT::Update", "APT::Default-Release", "Acquire::IndexTargets")
"""Of the machine's settings, those not taken over: places, hooks, and which indexes are read."""


@dataclass(frozen=True, slots=True)
class PrivateApt:
    """apt with its own lists, archives and sources; the machine's proxies and keys.

    Attributes:
        folder: holds all of it.
        release: the running release; packages come from it unless asked for otherwise.
        next_release: its successor.
        log: output of the commands.
    """

    folder: Path
    release: str
    next_release: str
    log: Path

    def prepare(self) -> None:
        """Writes the configuration and reads the package lists.

        Raises:
            AssetError: apt is missing, no source fits, or an archive cannot be read.
        """
        if shutil.which("apt-get") is None:
            raise AssetError("apt-get is missing: the binaries come from Debian packages")
        for name in ("state/lists/partial", "cache/archives/partial", "sources"):
            (self.folder / name).mkdir(parents=True)
        stanzas = private_list(read_sources(), self.release, self.next_release)
        (self.folder / "sources" / "private.sources").write_text(stanzas)
        self._config.write_text(self._machine_settings() + self._own_settings())
        self._apt("update")

    def download(self, packages: Iterable[str], to: Path) -> None:
        """Unpacks packages into ``to``, without what they depend on.

        Args:
            packages: names; ``name/release`` takes one from that release.
            to: created where it is missing.
        """
        debs = self.folder / "debs"
        debs.mkdir()
        run(["apt-get", "download", *packages], log=self.log, cwd=debs, env=self._env)
        self._unpack(debs.glob("*.deb"), to)
        shutil.rmtree(debs)

    def download_closure(self, packages: Sequence[str], to: Path) -> None:
        """Unpacks packages and all they need that this machine lacks into ``to``."""
        to.mkdir(parents=True, exist_ok=True)
        if not packages:
            return
        options = ["--yes", "--download-only", "--no-install-recommends"]
        self._apt("install", *options, *packages)
        self._unpack((self.folder / "cache" / "archives").glob("*.deb"), to)

    def download_source(self, package: str, to: Path) -> Path:
        """Fetches a source package, its checksums verified by apt; returns its ``.dsc`` file."""
        to.mkdir(parents=True)
        run(
            ["apt-get", "source", "--download-only", package],
            log=self.log,
            cwd=to,
            env=self._env,
        )
        return next(to.glob("*.dsc"))

    @property
    def _config(self) -> Path:
        return self.folder / "apt.conf"

    @property
    def _env(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self._config), "DEBIAN_FRONTEND": "noninteractive"}

    def _apt(self, *words: str) -> None:
        run(["apt-get", *words], log=self.log, env=self._env)

    def _unpack(self, debs: Iterable[Path], to: Path) -> None:
        for deb in debs:
            run(["dpkg", "-x", deb, to], log=self.log)

    @staticmethod
    def _machine_settings() -> str:
        dump = capture(["apt-config", "dump"]).splitlines(keepends=True)
        return "".join(line for line in dump if not line.startswith(_DROPPED))

    def _own_settings(self) -> str:
        folder = self.folder
        return f"""
            Dir::State "{folder}/state";
            Dir::State::status "/var/lib/dpkg/status";
            Dir::Cache "{folder}/cache";
            Dir::Etc::main "/dev/null";
            Dir::Etc::parts "/dev/null";
            Dir::Etc::preferences "/dev/null";
            Dir::Etc::preferencesparts "/dev/null";
            Dir::Etc::sourcelist "/dev/null";
            Dir::Etc::sourceparts "{folder}/sources";
            APT::Default-Release "{self.release}";
            APT::Sandbox::User "root";
            APT::Update::Error-Mode "any";
            Acquire::IndexTargets::deb-src::Sources::DefaultEnabled "true";
            Acquire::Languages "none";
            Debug::NoLocking "true";
        """
