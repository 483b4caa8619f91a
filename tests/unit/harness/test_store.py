import subprocess
import threading
import time
from pathlib import Path

from tests.cluster.assets.store import Store
from tests.cluster.harness.marks import marked_pids

_MARK = "GPU_FRACTION_TEST_STORE"


def _folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_a_version_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """The new folder takes the old one's place; nothing else is left."""
    store = Store(tmp_path, _MARK)
    version = _folder(tmp_path / "1.37.2", "old")
    store.publish(_folder(tmp_path / ".build-1", "new"), version)
    assert (version / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["1.37.2"]


def test_killed_between_the_renames_the_old_version_comes_back(tmp_path: Path) -> None:
    """A publish that moved the old version away and died costs nothing."""
    _folder(tmp_path / ".old-1.37.2", "old")
    Store(tmp_path, _MARK).clean()
    assert (tmp_path / "1.37.2" / "file").read_text() == "old"


def test_what_a_killed_run_left_is_ended_and_removed(tmp_path: Path) -> None:
    """A build that outlived its starter is killed before its folder is removed."""
    left = _folder(tmp_path / ".build-abc", "half")
    # The shell leaves a grandchild behind, as a killed make leaves compilers.
    argv = ["sh", "-c", "sleep 300 & wait"]
    with subprocess.Popen(argv, env={_MARK: str(left), "PATH": "/usr/bin:/bin"}) as build:
        # For a moment a program that starts shows no environment.
        while len(list(marked_pids(_MARK, str(left)))) < 2:
            time.sleep(0.01)
        Store(tmp_path, _MARK).clean()
        assert build.wait() != 0
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_work_at_once(tmp_path: Path) -> None:
    """The second waits for the first."""
    store = Store(tmp_path / "made", _MARK)
    order: list[str] = []

    def second() -> None:
        with store.lock():
            order.append("second")

    with store.lock():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
