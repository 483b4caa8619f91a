"""Files out of the distribution's packages, unpacked beside the system: nothing is installed."""

import shutil
from pathlib import Path

from tests.cluster.assets.steps import AssetError, run


def unpack(packages: tuple[str, ...], folder: Path, log: Path) -> Path:
    """Fetches packages by the machine's own sources and unpacks them; returns their root.

    Package lists are read into the folder too: those of the machine may be missing or old.

    Args:
        packages: their names.
        folder: made here, to be removed by the caller.
        log: output of the commands.

    Raises:
        AssetError: apt is missing, or a package cannot be had.
    """
    if shutil.which("apt-get") is None:
        raise AssetError(f"apt-get is missing: {', '.join(packages)} are packages of Debian")
    for name in ("lists/partial", "cache/archives/partial", "debs", "root"):
        (folder / name).mkdir(parents=True)
    private = {
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    apt = ["apt-get", *(f"--option={key}={value}" for key, value in private.items())]
    run([*apt, "update"], log=log)
    run([*apt, "download", *packages], log=log, cwd=folder / "debs")
    for deb in (folder / "debs").glob("*.deb"):
        run(["dpkg", "-x", deb, folder / "root"], log=log)
    return folder / "root"
