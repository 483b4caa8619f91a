"""etcd, API server, controllers and scheduler as processes of this machine."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness import flags
from tests.cluster.harness.binaries import CONTROL_PLANE, Binaries
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.kubeconfig import Access
from tests.cluster.harness.kubectl import Kubectl
from tests.cluster.harness.options import ControlPlaneOptions
from tests.cluster.harness.pki import Authority, new_key
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Process
from tests.cluster.harness.run_directory import RunDirectory, create_run


@dataclass(frozen=True, slots=True)
class ControlPlane(Cluster):
    """A control plane that the tests own.

    Attributes:
        run: its folder, by which all of it is found again.
        binaries: the programs.
        authority: signs certificates that its API server believes.
        etcd: may be stopped, killed and started again, as the following; ``wait_healthy`` after
            a start.
        api_server: kube-apiserver.
        controller_manager: kube-controller-manager.
        scheduler: kube-scheduler; not started if the options say so.
    """

    run: RunDirectory
    binaries: Binaries
    authority: Authority
    etcd: Process
    api_server: Process
    controller_manager: Process
    scheduler: Process

    def user_kubeconfig(self, user: str, *groups: str) -> Path:
        """A kubeconfig with a client certificate for a user in some groups."""
        stem = "user-" + user.replace(":", "-").replace("/", "-")
        certificate, key = self.authority.issue(stem, user, groups)
        access = _certificate_access(self.access.server, self.access.authority, certificate, key)
        return access.write(self.folder / f"{stem}.kubeconfig")

    def process(self, name: str, argv: list[str | Path], **env: str) -> Process:
        """A program that ends with the cluster, such as a component under test; not started."""
        log = self.run.folder("logs") / f"{name}.log"
        return Process(name, argv, log, self.run.environment(**env))

    def start(self, *, scheduler: bool) -> None:
        """Starts the components in order and waits until pods can be created."""
        self.etcd.start()
        self.etcd.wait_healthy()
        self.api_server.start()
        self.api_server.wait_healthy()
        started = [self.controller_manager, *([self.scheduler] if scheduler else [])]
        for process in started:
            process.start()
        for process in started:
            process.wait_healthy()
        self.wait_for_account("default")

    def kill(self) -> None:
        """Ends the components at once. What they know is thrown away with the folder."""
        for process in (self.scheduler, self.controller_manager, self.api_server, self.etcd):
            process.kill()


@contextlib.contextmanager
def running_control_plane(
    binaries: Binaries, options: ControlPlaneOptions | None = None
) -> Iterator[ControlPlane]:
    """A control plane of its own, gone without trace at the end.

    Raises:
        MissingBinariesError: a program is not on this machine.
        ComponentError: a component did not start.
    """
    binaries.require(CONTROL_PLANE)
    options = options or ControlPlaneOptions()
    run = create_run()
    try:
        plane = _prepare(run, binaries, options)
        try:
            plane.start(scheduler=options.scheduler)
            yield plane
        finally:
            plane.kill()
    finally:
        run.close()


def _prepare(run: RunDirectory, binaries: Binaries, options: ControlPlaneOptions) -> ControlPlane:
    """Keys, configuration and command lines; nothing runs yet."""
    authority = Authority(run.folder("pki"))
    new_key(authority.folder / "service-accounts.key")
    place = flags.Place(run.address, run.service_subnet, run.gateway, run.path, authority)
    server = f"https://{run.address}:{free_port(run.address)}"
    etcd_url, peer_url = (f"http://{run.address}:{free_port(run.address)}" for _ in range(2))
    kubeconfigs = run.folder("kubeconfigs")

    def access(stem: str, user: str, *groups: str) -> Access:
        certificate, key = authority.issue(stem, user, groups)
        return _certificate_access(server, authority.certificate, certificate, key)

    def component(name: str, own: flags.Flags, health: str) -> Process:
        log = run.folder("logs") / f"{name}.log"
        argv: list[str | Path] = [binaries[name], *options.argv(name, own)]
        url = f"https://{run.address}:{own['secure-port']}/{health}"
        return Process(name, argv, log, run.environment(), url, authority.certificate)

    admin = access("admin", "test-admin", "system:masters")
    admin_file = admin.write(kubeconfigs / "admin")
    managed = {}
    for name in ("kube-controller-manager", "kube-scheduler"):
        managed[name] = access(name, f"system:{name}").write(kubeconfigs / name)
    config = flags.scheduler_config(options, managed["kube-scheduler"])
    config_file = run.folder("kube-scheduler") / "config"
    config_file.write_text(json.dumps(config, indent=1))
    etcd_argv: list[str | Path] = [
        binaries["etcd"],
        *flags.etcd(place, etcd_url, peer_url),
    ]
    return ControlPlane(
        access=admin,
        kubectl=Kubectl(binaries["kubectl"], admin_file, run.environment()),
        version=binaries.version,
        folder=kubeconfigs,
        run=run,
        binaries=binaries,
        authority=authority,
        etcd=Process(
            "etcd",
            etcd_argv,
            run.folder("logs") / "etcd.log",
            run.environment(),
            f"{etcd_url}/health",
        ),
        api_server=component(
            "kube-apiserver", flags.api_server(place, server, etcd_url), "readyz"
        ),
        controller_manager=component(
            "kube-controller-manager",
            flags.controller_manager(place, options, managed["kube-controller-manager"]),
            "healthz",
        ),
        scheduler=component(
            "kube-scheduler",
            flags.scheduler(place, config_file, managed["kube-scheduler"]),
            "healthz",
        ),
    )


def _certificate_access(server: str, authority: Path, certificate: Path, key: Path) -> Access:
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    return Access(server, authority, user)
