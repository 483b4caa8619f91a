"""Requests, latency and CPU of ``/mutate`` over TLS, one process, beside two yardsticks.

All servers get the same recorded Deployment review over the same eight connections, in turn,
round by round; the figures are medians over the rounds, the ratios are taken inside a round.
"""

import argparse
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.cluster.harness.binaries import find_binaries
from tests.performance import report

HERE = Path(__file__).parent
REVIEW = HERE.parents[1] / "examples" / "reviews" / "inference-create-mutating.json"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """One process under load."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    path: str
    body: str = "body"
    rows: list[dict[str, float]] = field(default_factory=list)

    def cpu_s(self) -> float:
        """CPU seconds that the process has used."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        user, system = stat.rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / TICKS

    def median(self, key: str) -> float:
        """The median over the rounds."""
        return statistics.median(row[key] for row in self.rows)


def start_ours(folder: Path) -> Server:
    """``gpu-fraction webhook`` as it is deployed."""
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu_fraction.cli.main", "webhook", "--host", "127.0.0.1"]
            + ["--port", "0", "--tls-cert", str(folder / "crt"), "--tls-key", str(folder / "key")]
            + ["--gpu-memory-mib", "80Gi", "--drain-least", "0", "--drain-most", "1"],
            stdout=out,
        )
    until = time.monotonic() + 20
    port = 0
    while not port and time.monotonic() < until:
        time.sleep(0.1)
        events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        port = next((e["port"] for e in events if e["event"] == "server.listening"), 0)
    return Server(
        "gpu-fraction webhook, pods of one template", process, port, "/mutate?timeout=10s"
    )


def start_echo(folder: Path, decode: str, name: str) -> Server:
    """The floor."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "echo_server.py"), str(folder / "crt"), str(folder / "key")]
        + [str(folder / "answer"), decode],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )
    assert process.stdout is not None
    return Server(name, process, int(process.stdout.readline()), "/mutate")


def start_agnhost(folder: Path, binary: str) -> Server:
    """Kubernetes' reference webhook in Go."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [binary, "webhook", f"--tls-cert-file={folder / 'crt'}", f"--port={port}"]
        + [f"--tls-private-key-file={folder / 'key'}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    return Server("agnhost webhook (Go)", process, port, "/mutating-pods")


def load(server: Server, folder: Path, seconds: float) -> dict[str, float]:
    """One round on one server."""
    before = server.cpu_s()
    out = subprocess.run(
        [sys.executable, str(HERE / "load.py"), str(server.port), server.path]
        + [str(folder / server.body), "8", str(seconds), str(folder / "ca")],
        check=True,
        capture_output=True,
    )
    row: dict[str, float] = json.loads(out.stdout)
    row["rps"] = row["requests"] / row["seconds"]
    row["cpu_ms"] = (server.cpu_s() - before) / row["requests"] * 1000
    return row


def prepare(folder: Path) -> None:
    """Certificate, review and a canned answer of the size of ours."""
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    pair.private_key_pem.write_to_path(folder / "key")
    pair.cert_chain_pems[0].write_to_path(folder / "crt")
    authority.cert_pem.write_to_path(folder / "ca")
    body = json.dumps(
        json.loads(REVIEW.read_text(encoding="utf-8"))["body"], separators=(",", ":")
    )
    (folder / "body").write_text(body, encoding="utf-8")
    different = body.replace(
        '"name":"server",', '"name":"server","env":[{"name":"N","value":"' + "0" * 16 + '"}],'
    )
    (folder / "different").write_text(different, encoding="utf-8")
    answer = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": "2e694f3b-0eb1-447e-b553-6698f1673e62",
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(b"x" * 900).decode(),
        },
    }
    (folder / "answer").write_text(json.dumps(answer), encoding="utf-8")


def main() -> None:
    """Run all rounds and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        servers = [
            start_ours(folder),
            start_echo(folder, "typed", "bare aiohttp echo + decoding"),
            start_echo(folder, "none", "bare aiohttp echo"),
        ]
        ours = servers[0]
        servers.append(
            Server("gpu-fraction webhook, every pod different", ours.process, ours.port, ours.path)
        )
        servers[-1].body = "different"
        if binary := find_binaries().paths.get("agnhost"):
            servers.append(start_agnhost(folder, binary))
        try:
            for server in servers:
                load(server, folder, 1.0)
            for _ in range(args.rounds):
                for server in servers:
                    server.rows.append(load(server, folder, args.seconds))
        finally:
            for server in servers:
                server.process.kill()
                server.process.wait()
    write(servers, args.rounds, args.seconds)


def write(servers: list[Server], rounds: int, seconds: float) -> None:
    """The table, on the terminal and in the document."""
    ours = servers[0]
    rows = []
    for server in servers:
        ratios = [a["cpu_ms"] / b["cpu_ms"] for a, b in zip(ours.rows, server.rows, strict=True)]
        rows.append(
            [
                server.name,
                f"{server.median('rps'):.0f}",
                f"{server.median('p50_ms'):.2f}",
                f"{server.median('p99_ms'):.2f}",
                f"{server.median('cpu_ms'):.3f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                f"{sum(r['errors'] for r in server.rows):.0f}",
            ]
        )
    header = ["server", "requests/s", "p50 ms", "p99 ms", "CPU ms a request"]
    text = report.table([*header, "our CPU / its CPU", "errors"], rows)
    print(text)
    report.write_section(
        "webhook",
        "Admission: `/mutate` over TLS, one process",
        f"`make bench`: the recorded Deployment review ({REVIEW.name}), 8 kept-alive "
        f"connections, {rounds} rounds of {seconds:g} s on each server in turn; medians, and "
        f"the ratio inside each round (lowest to highest).\n\nMachine: {report.machine()}.\n\n"
        + text
        + ("" if len(servers) > 4 else "\n\nNo `agnhost` was found (`make cluster-assets`)."),
    )


main()
