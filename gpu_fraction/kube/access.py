"""The address of the API server, and credentials for it.

An :class:`Access` is the result of one read of a source. A source is read again when the
credentials grow old or the server answers 401, so that rotated tokens, client certificates
and CA files need no restart.

- :func:`in_cluster`: the service account's files; a few system calls, no import.
- :func:`kubeconfig`: through kubernetes-asyncio, which supports exec plugins, OIDC and client
  certificates. Its package imports every API model (about 40 MiB, half a second), so it is
  imported on first use only and off the event loop.
"""

import asyncio
import os
import platform
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Source: kubernetes.io, Accessing the Kubernetes API from a Pod."""

TOKEN_MAX_AGE_S: Final = 60.0
"""Source: client-go transport/token_source.go, which reads the token file again each minute."""

VERSION: Final = version("gpu-fraction")
"""Version of the installed distribution. Read once, because that reads files."""


class AccessError(Exception):
    """No usable configuration or credentials; the message names the file or variable."""


@dataclass(frozen=True, slots=True)
class Access:
    """One API server and one identity.

    Attributes:
        server: URL without a trailing slash.
        authorization: value of the Authorization header; empty for none.
        ca_pem: certificates to trust, PEM; empty for the system's.
        cert_file: client certificate, PEM; empty for none.
        key_file: its key, PEM.
        cert_pem: content of ``cert_file``, to detect a rotation.
        verify: False accepts any server certificate.
        server_name: name to expect in the server's certificate, where it is not the host.
        proxy: URL of an HTTP proxy; empty for none.
        headers: more request headers: whom to impersonate.
        namespace: where the kubeconfig's context works; empty where it names none.
    """

    server: str
    authorization: str = ""
    ca_pem: str = ""
    cert_file: str = ""
    key_file: str = ""
    cert_pem: str = ""
    verify: bool = True
    server_name: str = ""
    proxy: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    namespace: str = ""

    def __repr__(self) -> str:
        """Without the credentials, because tracebacks show access objects."""
        return f"Access(server={self.server!r})"

    def same_connection(self, other: "Access") -> bool:
        """True where only headers differ, so that connections can stay open."""
        return self == replace(other, authorization=self.authorization, headers=self.headers)

    def tls(self) -> ssl.SSLContext | None:
        """A TLS context for the server, or None for plain HTTP. Blocks: parses certificates.

        Raises:
            AccessError: a certificate or key does not parse.
        """
        if not self.server.startswith("https:"):
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca_pem or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None)
        except (OSError, ValueError) as error:
            raise AccessError(f"TLS material for {self.server}: {error}") from error
        # Cluster CAs made by kubeadm and others lack the key identifiers that strict
        # checking, the default since Python 3.13, demands.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True)
class AccessSource:
    """Finds the current access.

    Attributes:
        find: reads it. Raises AccessError.
        max_age_s: seconds after which it is read again; a 401 also causes a read.
    """

    find: Callable[[], Awaitable[Access]]
    max_age_s: float = float("inf")


def in_cluster(
    environ: Mapping[str, str], *, service_account: Path = SERVICE_ACCOUNT
) -> AccessSource:
    """A pod's own service account.

    Args:
        environ: holds KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT.
        service_account: folder with ``token`` and ``ca.crt``.
    """

    def read() -> Access:
        host = environ.get("KUBERNETES_SERVICE_HOST", "")
        port = environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port.isdecimal():
            raise AccessError(
                "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must name the API server;"
                f" found {host!r} and {port!r}"
            )
        token = _read(service_account / "token").strip()
        if not token:
            raise AccessError(f"{service_account / 'token'} is empty")
        return Access(
            server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            authorization=f"Bearer {token}",
            ca_pem=_read(service_account / "ca.crt"),
            namespace=_read(own).strip()
            if (own := service_account / "namespace").exists()
            else "",
        )

    async def find() -> Access:
        return await asyncio.to_thread(read)

    return AccessSource(find, TOKEN_MAX_AGE_S)


@dataclass(frozen=True, slots=True)
class Overrides:
    """kubectl's flags that stand for parts of a kubeconfig; empty leaves a part as it is.

    Attributes:
        context: name of the context.
        cluster: name of the cluster.
        user: name of the user.
        server: URL of the API server.
        token: bearer token.
        act_as: user to impersonate.
        groups: groups to impersonate; they need ``act_as``.
    """

    context: str = ""
    cluster: str = ""
    user: str = ""
    server: str = ""
    token: str = ""
    act_as: str = ""
    groups: tuple[str, ...] = ()

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Of the impersonation.

        Source: kubernetes.io, Authenticating, "User impersonation".
        """
        user = (("Impersonate-User", self.act_as),) if self.act_as else ()
        return (*user, *(("Impersonate-Group", group) for group in self.groups))


NO_OVERRIDES: Final = Overrides()


def kubeconfig(path: str = "", *, overrides: Overrides = NO_OVERRIDES) -> AccessSource:
    """A kubeconfig file, as kubectl reads it.

    Args:
        path: one file, or several separated by ``:``; empty for $KUBECONFIG or ~/.kube/config.
        overrides: what replaces parts of it.
    """

    async def find() -> Access:
        # Its loader reads files with blocking calls, so it runs in a thread with a loop of
        # its own; exec plugins are subprocesses and work from there.
        return await asyncio.to_thread(lambda: asyncio.run(_load_kubeconfig(path, overrides)))

    return AccessSource(find)


def default_source(
    environ: Mapping[str, str], *, path: str = "", context: str = ""
) -> AccessSource:
    """The service account inside a cluster; a kubeconfig elsewhere or if one is named."""
    if not path and not context and environ.get("KUBERNETES_SERVICE_HOST"):
        return in_cluster(environ)
    return kubeconfig(path, overrides=Overrides(context=context))


async def _load_kubeconfig(path: str, overrides: Overrides) -> Access:
    files = path or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    there = _there(files)
    if not there and not overrides.server:
        raise AccessError(f"kubeconfig {files}: no such file")
    # Imported here: see the module's docstring.
    from kubernetes_asyncio.config import kube_config  # noqa: PLC0415

    found: Any = SimpleNamespace(
        host="",
        api_key={},
        ssl_ca_cert=None,
        cert_file=None,
        key_file=None,
        verify_ssl=True,
        tls_server_name=None,
        proxy=None,
    )
    context: dict[str, Any] = {}
    headers = overrides.headers()
    try:
        if there and (merged := kube_config.KubeConfigMerger(files).config) is not None:
            chosen = _chosen(merged.value, overrides)
            loader = kube_config.KubeConfigLoader(merged, chosen, config_base_path=None)
            await loader.load_and_set(found)
            context = (loader.current_context or {}).get("context") or {}
            headers = headers or _impersonated(merged, context.get("user"))
    except Exception as error:
        # The loader raises YAML errors, bare asserts and any error of a plugin.
        raise AccessError(f"kubeconfig {files}: {error}") from error
    server = overrides.server.rstrip("/") or found.host
    if not server:
        raise AccessError(f"kubeconfig {files}: the cluster of the context names no server")
    token = f"Bearer {overrides.token}" if overrides.token else ""
    return Access(
        server=server,
        authorization=token or found.api_key.get("BearerToken", ""),
        ca_pem=_read(Path(found.ssl_ca_cert)) if found.ssl_ca_cert else "",
        cert_file=found.cert_file or "",
        key_file=found.key_file or "",
        cert_pem=_read(Path(found.cert_file)) if found.cert_file else "",
        verify=found.verify_ssl,
        server_name=found.tls_server_name or "",
        proxy=found.proxy or "",
        headers=headers,
        namespace=context.get("namespace") or "",
    )


def _there(files: str) -> bool:
    return any(Path(one).expanduser().exists() for one in files.split(os.pathsep) if one)


def _chosen(config: dict[str, Any], overrides: Overrides) -> str | None:
    """The name of the context; one of its own is added where cluster or user are replaced."""
    name = overrides.context or config.get("current-context") or None
    if not (overrides.cluster or overrides.user):
        return name
    named = {one["name"]: one["context"] for one in config.get("contexts") or ()}
    base = named.get(name)
    replaced = {"cluster": overrides.cluster, "user": overrides.user}
    parts = {key: base.safe_get(key) for key in ("cluster", "user", "namespace")} if base else {}
    made = {**parts, **{key: text for key, text in replaced.items() if text}}
    made_name = f"{name} with the flags"
    config["contexts"] = [*(config.get("contexts") or ()), {"name": made_name, "context": made}]
    return made_name


def _impersonated(config: Any, user: str | None) -> tuple[tuple[str, str], ...]:
    """The impersonation that the user's entry in the file asks for."""
    found = config["users"].get_with_name(user, safe=True) if user and "users" in config else None
    fields = found["user"].value if found and found.safe_get("user") else {}
    return Overrides(
        act_as=fields.get("as") or "", groups=tuple(fields.get("as-groups") or ())
    ).headers()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise AccessError(f"{path}: {error.strerror}") from error


def user_agent(component: str) -> str:
    """``gpu-fraction-COMPONENT/VERSION (system/machine)``, the form of Kubernetes' own clients.

    The part before the slash is also the field manager of writes that name none.
    """
    system = f"{platform.system().lower()}/{platform.machine()}"
    return f"gpu-fraction-{component}/{VERSION} ({system})"
