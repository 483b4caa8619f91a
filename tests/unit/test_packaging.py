"""What an installation puts beside everybody else's packages."""

import tomllib
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = ("certs", "claims", "node_daemon", "quota", "scheduler", "webhook")


def _wheel(project: Path, directory: Path) -> set[str]:
    """The names of the files in the wheel of the project."""
    builder = WheelBuilder(str(project))
    (built,) = builder.build(directory=str(directory), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        return {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_an_installation_adds_one_name_to_site_packages(tmp_path: Path) -> None:
    """Folders at the top of the repository are installed inside the package of the project."""
    files = _wheel(ROOT, tmp_path)
    assert {name.split("/")[0] for name in files} == {"gpu_fraction"}
    assert {f"gpu_fraction/{name}/__init__.py" for name in COMPONENTS} <= files


def test_the_demo_is_a_distribution_of_its_own(tmp_path: Path) -> None:
    """A plain installation has no cluster in one process; the extra adds it, no compiler."""
    demo = _wheel(ROOT / "sandbox", tmp_path)
    parts = ("apiserver/server.py", "controlplane/scheduler.py", "kubelet/agent.py")
    assert {f"gpu_fraction/sandbox/{part}" for part in parts} <= demo
    assert {name.split("/")[1] for name in demo} == {"sandbox"}
    assert not any("/nvml/" in name for name in demo)
    assert not demo & _wheel(ROOT, tmp_path)


def test_the_demo_has_the_version_of_the_package() -> None:
    """The extra asks for exactly the demo that was built from the same source."""
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    demo = tomllib.loads((ROOT / "sandbox" / "pyproject.toml").read_text())["project"]
    assert demo["version"] == package["version"]
    needed = "gpu-fraction[node,scheduler,terminal]"
    assert demo["dependencies"] == [f"{needed}=={package['version']}"]
    assert package["optional-dependencies"]["demo"] == [f"{demo['name']}=={demo['version']}"]


def test_every_component_is_reached_by_the_name_of_the_project() -> None:
    """Each folder at the top has its link in the package, and no other."""
    links = {path.name for path in (ROOT / "gpu_fraction").iterdir() if path.is_symlink()}
    assert links == {*COMPONENTS, "sandbox"}
    assert all((ROOT / "gpu_fraction" / name).resolve() == ROOT / name for name in links)
