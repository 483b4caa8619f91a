"""A stand-in for ``nvidia-cuda-mps-control``: a daemon of its own, and commands to it.

Commands come on standard input (version 2) or as arguments after ``-p 3``. The daemon keeps its
state in memory, so that one that is killed forgets it, as the real one does. It listens on
``control`` in its pipe directory and writes its pid file there. ``FAKE_MPS_FAIL`` names a file;
while that exists, its content is ``hang`` (no command is answered), or the first words of the
commands that fail.
"""

# The bare module: a test runs this program hundreds of times, and ``socket`` doubles its start.
import _socket
import os
import sys

PIPE = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
SOCKET = f"{PIPE}/control"
PID_FILE = f"{PIPE}/nvidia-cuda-mps-control.pid"


def failing() -> list[str]:
    """The words that let a command fail; ``hang`` lets every one wait."""
    try:
        with open(os.environ.get("FAKE_MPS_FAIL", "/nonexistent")) as file:
            return file.read().split()
    except OSError:
        return ["-"]


class Daemon:
    """What the control daemon knows."""

    def __init__(self, protocol: str, devices: str) -> None:
        self.protocol = protocol
        self.devices = set(filter(None, devices.split(",")))
        self.percent = "100"
        self.servers: dict[str, dict[str, dict[str, str]]] = {}
        self.connected: set[str] = set()

    def serve(self) -> None:
        """Answer until killed."""
        import time

        listener = _socket.socket(_socket.AF_UNIX)
        listener.bind(SOCKET)
        listener.listen(64)
        with open(PID_FILE, "w") as file:
            file.write(f"{os.getpid()}\n")
        while True:
            descriptor, _ = listener._accept()
            connection = _socket.socket(fileno=descriptor)
            words = connection.recv(65536).decode().split("\0")
            while failing() == ["hang"]:
                time.sleep(0.01)
            code, said = self.answer(words)
            connection.sendall(f"{code}{said}".encode())
            connection.close()

    def answer(self, words: list[str]) -> tuple[int, str]:
        """Exit status and output."""
        bad = failing()
        if bad == words[: len(bad)]:
            return 1, "told to fail"
        if self.protocol == "2":
            return 0, self.percent if words[0].startswith("get_default") else ""
        options = dict(w[2:].split("=", 1) for w in words if w.startswith("--") and "=" in w)
        module, verb, *names = [w for w in words if not w.startswith("--")]
        return getattr(self, module)(verb, names, options)

    def server(self, verb: str, names: list[str], options: dict[str, str]) -> tuple[int, str]:
        """The server module."""
        if verb == "list":
            rows = [f"{name},0,4711,Ready,{PIPE}/{name},-,-\n" for name in self.servers]
            return 0, "".join(rows)
        if verb == "create" and set(options["allowed-devices"].split(",")) <= self.devices:
            self.servers[names[0]] = {"default": {}}
        elif verb == "set" and names[0] in self.servers:
            self.servers[names[0]]["default"] |= options
        # A server that names a missing card is accepted as well, and ends at once.
        return 0, ""

    def client(self, verb: str, names: list[str], options: dict[str, str]) -> tuple[int, str]:
        """Not the real module: lets a test connect a client to a namespace."""
        del options
        (self.connected.add if verb == "connect" else self.connected.discard)(names[0])
        return 0, ""

    def namespace(self, verb: str, names: list[str], options: dict[str, str]) -> tuple[int, str]:
        """The namespace module."""
        server = self.servers.get(options.pop("server", ""))
        if server is None:
            return 1, "no such server"
        if verb == "list":
            return 0, "".join(self.row(name, limits) for name, limits in server.items())
        [name] = names
        if (verb == "create") == (name in server):
            return 1, f"namespace {name}: {verb} is not possible"
        if verb in {"set", "delete"} and name in self.connected:
            return 1, f"namespace {name} has active clients"
        if verb == "delete":
            del server[name]
        else:
            server.setdefault(name, {}).update(options)
            os.makedirs(f"{PIPE}/gpu_fraction/{name}", exist_ok=True)
        return 0, ""

    def row(self, name: str, limits: dict[str, str]) -> str:
        """One line of ``namespace list``."""
        percent = float(limits.get("active-thread-percentage", 100))
        memory = limits.get("pinned-memory-limit", "-")
        pipe = f"{PIPE}/gpu_fraction/{name}"
        return f"{name},gpu_fraction,Ready,{memory},{percent:.2f},0,{pipe}\n"


def send(words: list[str]) -> int:
    """Pass a command to the daemon."""
    connection = _socket.socket(_socket.AF_UNIX)
    try:
        connection.connect(SOCKET)
    except OSError:
        sys.stdout.write("Cannot find MPS control daemon process\n")
        return 1
    connection.sendall("\0".join(words).encode())
    answer = ""
    while part := connection.recv(65536):
        answer += part.decode()
    sys.stdout.write(answer[1:])
    return int(answer[:1] or 1)


def start(protocol: str) -> int:
    """Become a daemon: the caller's child ends, its grandchild serves."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Daemon(protocol, os.environ.get("CUDA_VISIBLE_DEVICES", "")).serve()
        os._exit(0)
    os.wait()
    return 0


def main(arguments: list[str]) -> int:
    """Start the daemon, or pass a command to it."""
    protocol = "3" if "3" in arguments[:3] and "-p" in arguments else "2"
    if "-d" in arguments:
        return start(protocol)
    if arguments[:2] == ["-p", "3"]:
        return send(arguments[2:])
    return send(sys.stdin.read().split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
