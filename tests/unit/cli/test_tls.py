"""What the webhook command makes of a certificate that somebody else provides."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.certs import app as certificates
from gpu_fraction.certs import pki
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.settings import ServingSettings
from gpu_fraction.kube.client import Client
from tests.support.certs_cluster import INSTALLATION, cluster
from tests.support.settings import configured

NOW = datetime.now(UTC)
AUTHORITY = pki.new_authority("somebody", NOW, Lifetimes())


@pytest.fixture(params=["folder", "files"])
def flags(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, str]:
    """A pair on disk, given the one way and the other."""
    leaf = pki.issue_leaf(AUTHORITY, INSTALLATION.server_names, NOW, Lifetimes())
    (tmp_path / "tls.crt").write_text(leaf.chain_pem)
    (tmp_path / "tls.key").write_text(leaf.key_pem)
    if request.param == "folder":
        return {"cert_dir": str(tmp_path)}
    return {"tls_cert": str(tmp_path / "tls.crt"), "tls_key": str(tmp_path / "tls.key")}


def mounted(
    flags: Mapping[str, str], client: Client | None
) -> tuple[certificates.Certificate, CollectorRegistry]:
    """The certificate of these flags, and its metrics."""
    registry = CollectorRegistry()
    settings = configured(ServingSettings, **flags)
    assert settings.provided
    return certificates.mounted(settings, registry, client), registry


def ready(registry: CollectorRegistry) -> float | None:
    """What the metric says."""
    return registry.get_sample_value("gpu_fraction_certificate_ready")


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.02)


async def test_in_a_cluster_it_is_checked_against_the_configurations(
    flags: Mapping[str, str],
) -> None:
    """A pair that no caBundle trusts gets no traffic, and the metric says so."""
    other = pki.new_authority("somebody else", NOW, Lifetimes())
    async with cluster() as made:
        await made.set_bundles(other.certificate.pem)
        certificate, registry = mounted(flags, made.client)
        task = asyncio.create_task(certificate.run())
        await until(lambda: "webhook mutate.gpu-fraction.dev" in (certificate.check() or ""))
        assert ready(registry) == 0
        await made.set_bundles(AUTHORITY.certificate.pem)
        await until(lambda: certificate.check() is None)
        assert ready(registry) == 1
        task.cancel()
        await asyncio.wait([task])


def test_outside_of_one_its_dates_are_all_that_is_checked(flags: Mapping[str, str]) -> None:
    """There is nothing to check it against."""
    certificate, registry = mounted(flags, None)
    assert certificate.check() is None
    assert ready(registry) == 1
