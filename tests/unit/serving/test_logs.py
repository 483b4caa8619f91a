"""Log lines: one JSON object each, nothing lost, wherever they come from."""

import asyncio
import contextlib
import errno
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import structlog

from gpu_fraction.serving import logs


class Terminal(io.TextIOWrapper):
    """A standard output whose lines can be read."""

    def __init__(self) -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding="utf-8", write_through=True)

    @property
    def events(self) -> list[str]:
        """The events written so far."""
        return [json.loads(line)["event"] for line in self.raw_bytes.getvalue().splitlines()]


class FullDisk(io.RawIOBase):
    """A file that takes nothing more until there is room."""

    def __init__(self) -> None:
        self.full = True
        self.written = b""

    def writable(self) -> bool:
        """It is there to be written to."""
        return True

    def write(self, data: Any) -> int:
        """As the kernel answers."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written += bytes(data)
        return len(data)


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """Standard output, with logging set up for it."""
    made = Terminal()
    with contextlib.redirect_stdout(made):
        logs.configure("info")
        yield made


def test_without_a_loop_every_line_goes_out_at_once() -> None:
    """As in a command that starts, or in a thread."""
    with terminal() as shown:
        structlog.get_logger().info("first", number=1)
        assert shown.events == ["first"]


async def test_lines_that_come_close_together_are_in_order() -> None:
    """They wait for each other a moment, and no longer."""
    names = [f"line {number}" for number in range(5)]
    with terminal() as shown:
        log = structlog.get_logger()
        for name in names:
            log.info(name)
        await asyncio.sleep(2 * logs.FLUSH_S)
        assert shown.events == names


async def test_a_warning_waits_for_nothing() -> None:
    """Whatever comes next, it has been told, after what came before it."""
    with terminal() as shown:
        structlog.get_logger().info("before")
        structlog.get_logger().warning("trouble")
        assert shown.events == ["before", "trouble"]


def test_a_loop_that_ended_early_keeps_nothing_back() -> None:
    """What one loop did not come to write is written with the next line."""
    log = structlog.get_logger()

    async def cut_short() -> None:
        asyncio.get_running_loop().stop()
        log.info("left behind")

    with terminal() as shown:
        loop = asyncio.new_event_loop()
        task = loop.create_task(cut_short())
        loop.run_forever()
        loop.close()
        assert task.done()
        log.info("later")
        assert shown.events == ["left behind", "later"]


def test_threads_lose_and_repeat_no_line() -> None:
    """Blocking work logs from threads of its own."""
    names = [[f"{thread}-{number}" for number in range(50)] for thread in range(4)]

    def work(mine: list[str]) -> None:
        log = structlog.get_logger()
        for name in mine:
            log.info(name)

    with terminal() as shown:
        threads = [threading.Thread(target=work, args=(mine,)) for mine in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(shown.events) == sorted(name for mine in names for name in mine)


def test_a_replaced_output_is_followed() -> None:
    """Nothing is written to what standard output was before."""
    log = structlog.get_logger()
    with terminal() as shown:
        log.info("before")
        other = Terminal()
        with contextlib.redirect_stdout(other):
            shown.close()
            log.info("after")
            logging.getLogger("library").warning("its own")
            assert other.events == ["after", "its own"]


def test_a_full_disk_fails_nobody_who_logs() -> None:
    """Work goes on; once there is room, it is told how many lines may be missing."""
    log = structlog.get_logger()
    disk = FullDisk()
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BufferedWriter(disk))):
        logs.configure("info")
        log.info("first")
        log.warning("second")
        disk.full = False
        log.info("third")
        told = [json.loads(line) for line in disk.written.splitlines()]
    assert [line["event"] for line in told[-2:]] == ["third", "log_not_written"]
    assert told[-1]["lines"] == 2


def test_a_closed_output_fails_nobody_who_logs() -> None:
    """As when what read along has gone."""
    with terminal() as shown:
        shown.close()
        structlog.get_logger().warning("to nobody")
