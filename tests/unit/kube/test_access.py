"""Where the API server is and who we are: service accounts and kubeconfigs."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from gpu_fraction.kube.access import (
    Access,
    AccessError,
    Overrides,
    default_source,
    in_cluster,
    kubeconfig,
)

ENVIRON = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    """A service account's folder as the kubelet mounts it."""
    (tmp_path / "token").write_text("tok\n", encoding="ascii")
    (tmp_path / "ca.crt").write_text("PEM", encoding="ascii")
    return tmp_path


def write_kubeconfig(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> str:
    """A kubeconfig with one context."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(config), encoding="ascii")
    return str(path)


async def test_a_pod_uses_its_service_account(service_account: Path) -> None:
    """Host and port from the environment, token and CA from the files."""
    access = await in_cluster(ENVIRON, service_account=service_account).find()
    assert access == Access(
        server="https://10.0.0.1:443", authorization="Bearer tok", ca_pem="PEM"
    )


async def test_an_ipv6_host_is_bracketed(service_account: Path) -> None:
    """A bare IPv6 address cannot stand before a port."""
    environ = {**ENVIRON, "KUBERNETES_SERVICE_HOST": "fd00::1"}
    access = await in_cluster(environ, service_account=service_account).find()
    assert access.server == "https://[fd00::1]:443"


async def test_a_service_account_that_is_not_whole_says_what_is_missing(
    service_account: Path,
) -> None:
    """The message names the variable or the file."""
    with pytest.raises(AccessError, match="KUBERNETES_SERVICE_HOST"):
        await in_cluster({}, service_account=service_account).find()
    (service_account / "token").write_text(" \n", encoding="ascii")
    with pytest.raises(AccessError, match="token is empty"):
        await in_cluster(ENVIRON, service_account=service_account).find()
    (service_account / "token").unlink()
    with pytest.raises(AccessError, match="token: No such file"):
        await in_cluster(ENVIRON, service_account=service_account).find()


async def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    """Server, token, CA, server name and proxy are taken over."""
    cluster = {
        "server": "https://example.test:6443/",
        "certificate-authority-data": base64.b64encode(b"PEM").decode(),
        "tls-server-name": "kubernetes",
        "proxy-url": "http://proxy.test:3128",
    }
    path = write_kubeconfig(tmp_path / "config", cluster, {"token": "tok"})
    assert await kubeconfig(path).find() == Access(
        server="https://example.test:6443",
        authorization="Bearer tok",
        ca_pem="PEM",
        server_name="kubernetes",
        proxy="http://proxy.test:3128",
    )


async def test_a_kubeconfig_with_client_certificates(tmp_path: Path) -> None:
    """Certificate and key load into a TLS context, and a rotation is a new connection."""
    authority = trustme.CA()
    first, second = (authority.issue_cert("client@test") for _ in range(2))
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    path = write_kubeconfig(
        tmp_path / "config",
        {"server": "https://example.test", "certificate-authority": "ca.pem"},
        {"client-certificate": "cert.pem", "client-key": "key.pem"},
    )
    found = []
    for pair in (first, second):
        cert.write_bytes(pair.cert_chain_pems[0].bytes())
        key.write_bytes(pair.private_key_pem.bytes())
        found.append(await kubeconfig(path).find())
    assert found[0].tls() is not None
    assert not found[0].same_connection(found[1])


async def test_an_exec_plugin_is_asked_for_the_token(tmp_path: Path) -> None:
    """Cloud clusters hand out tokens through a program that the kubeconfig names."""
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-plugin"},
    }
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", f"print({json.dumps(credential)!r})"],
        "interactiveMode": "Never",
    }
    path = write_kubeconfig(tmp_path / "config", {"server": "http://x.test"}, {"exec": plugin})
    access = await kubeconfig(path).find()
    assert access.authorization == "Bearer from-plugin"


def write_two_of_each(path: Path, **user: Any) -> str:
    """A kubeconfig with two clusters, users and contexts."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "one", "user": "one", "namespace": "team-a"}},
            {"name": "two", "context": {"cluster": "two", "user": "two"}},
        ],
        "clusters": [
            {"name": name, "cluster": {"server": f"http://{name}.test"}} for name in ("one", "two")
        ],
        "users": [{"name": name, "user": {"token": name, **user}} for name in ("one", "two")],
    }
    path.write_text(json.dumps(content), encoding="ascii")
    return str(path)


@pytest.mark.parametrize(
    ("overrides", "server", "token", "namespace"),
    [
        (Overrides(), "http://one.test", "one", "team-a"),
        (Overrides(context="two"), "http://two.test", "two", ""),
        (Overrides(cluster="two"), "http://two.test", "one", "team-a"),
        (Overrides(user="two"), "http://one.test", "two", "team-a"),
        (Overrides(context="two", user="one"), "http://two.test", "one", ""),
        (Overrides(server="http://x.test/"), "http://x.test", "one", "team-a"),
        (Overrides(token="t"), "http://one.test", "t", "team-a"),
    ],
)
async def test_flags_stand_for_parts_of_a_kubeconfig(
    tmp_path: Path, overrides: Overrides, server: str, token: str, namespace: str
) -> None:
    """As kubectl's do."""
    path = write_two_of_each(tmp_path / "config")
    found = await kubeconfig(path, overrides=overrides).find()
    assert (found.server, found.authorization, found.namespace) == (
        server,
        f"Bearer {token}",
        namespace,
    )


@pytest.mark.parametrize("field", ["context", "cluster", "user"])
async def test_a_name_that_the_kubeconfig_has_not_is_told(tmp_path: Path, field: str) -> None:
    """With the file's name; a user may be missing, as in kubectl."""
    path = write_two_of_each(tmp_path / "config")
    source = kubeconfig(path, overrides=Overrides(**{field: "absent"}))
    if field == "user":
        assert not (await source.find()).authorization
        return
    with pytest.raises(AccessError, match=r"config: .*absent"):
        await source.find()


async def test_a_server_and_a_token_need_no_kubeconfig(tmp_path: Path) -> None:
    """As in kubectl."""
    overrides = Overrides(server="http://x.test", token="t")
    found = await kubeconfig(str(tmp_path / "absent"), overrides=overrides).find()
    assert found == Access("http://x.test", "Bearer t")


async def test_impersonation_comes_from_flags_or_the_file(tmp_path: Path) -> None:
    """Flags win; every group is a header of its own."""
    path = write_two_of_each(tmp_path / "config", **{"as": "ann", "as-groups": ["g", "h"]})
    groups = (("Impersonate-Group", "g"), ("Impersonate-Group", "h"))
    found = await kubeconfig(path).find()
    assert found.headers == (("Impersonate-User", "ann"), *groups)
    flags = Overrides(act_as="bob", groups=("i",))
    found = await kubeconfig(path, overrides=flags).find()
    assert found.headers == (("Impersonate-User", "bob"), ("Impersonate-Group", "i"))


@pytest.mark.parametrize("content", ["", "[]", "{}", "apiVersion: v1\nkind: Config\n", ":\n- ["])
async def test_a_kubeconfig_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    """Empty, foreign and broken files end in one error that names the file."""
    path = tmp_path / "config"
    path.write_text(content, encoding="ascii")
    with pytest.raises(AccessError, match="config"):
        await kubeconfig(str(path)).find()


async def test_a_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    """So does a file that is not there."""
    with pytest.raises(AccessError, match="absent"):
        await kubeconfig(str(tmp_path / "absent")).find()


async def test_a_named_kubeconfig_wins_over_the_service_account(tmp_path: Path) -> None:
    """Inside a cluster the service account is used unless a file is named."""
    path = write_kubeconfig(tmp_path / "config", {"server": "http://x.test"}, {})
    assert (await default_source(ENVIRON, path=path).find()).server == "http://x.test"
    with pytest.raises(AccessError, match="serviceaccount"):
        await default_source(ENVIRON).find()


def test_credentials_do_not_show_in_tracebacks() -> None:
    """The representation names the server alone."""
    access = Access(server="https://x.test", authorization="Bearer secret", ca_pem="PEM")
    assert repr(access) == "Access(server='https://x.test')"


def test_tls_material_that_does_not_parse_is_reported() -> None:
    """A CA that is no certificate is a configuration error, not a crash."""
    with pytest.raises(AccessError, match=r"TLS material for https://x\.test"):
        Access(server="https://x.test", ca_pem="no certificate").tls()


def test_reading_a_service_account_does_not_import_the_generated_client() -> None:
    """A daemon in a pod does not pay for the API models it never uses."""
    code = (
        "import sys, gpu_fraction.kube.client, gpu_fraction.kube.reflector;"
        "sys.exit('kubernetes_asyncio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
