"""A mounted pair, changed the ways it is changed in practice."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gpu_fraction.certs import pki
from gpu_fraction.certs.cache import CertificateCache
from gpu_fraction.certs.certificate import Leaf
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.mounted import MountedCertificates
from gpu_fraction.certs.reporting import Reporter
from tests.support.certs_cluster import INSTALLATION, cluster

NOW = datetime.now(UTC)
AUTHORITY = pki.new_authority("somebody", NOW, Lifetimes())


def new_leaf() -> Leaf:
    """A pair that somebody issued."""
    return pki.issue_leaf(AUTHORITY, ["webhook.ns.svc"], NOW, Lifetimes())


def pair(folder: Path) -> tuple[Path, Path]:
    """Where a Secret of type TLS has its certificate and its key."""
    return folder / "tls.crt", folder / "tls.key"


class Volume:
    """A volume that is swapped as the kubelet does it: data in a folder, one symbolic link."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        path.mkdir()

    def write(self, leaf: Leaf) -> None:
        """Replace the content in one rename."""
        self._count += 1
        data = self.path / f"..data_{self._count}"
        data.mkdir()
        (data / "tls.crt").write_text(leaf.chain_pem)
        (data / "tls.key").write_text(leaf.key_pem)
        link = self.path / "..data_tmp"
        link.symlink_to(data.name)
        link.rename(self.path / "..data")
        for name in ("tls.crt", "tls.key"):
            file = self.path / name
            if not file.is_symlink():
                file.symlink_to(f"..data/{name}")


@pytest.fixture
async def mounted(tmp_path: Path) -> AsyncIterator[tuple[MountedCertificates, Volume]]:
    """A follower of a volume that is still empty."""
    volume = Volume(tmp_path / "tls")
    made = MountedCertificates(
        *pair(volume.path),
        Lifetimes(),
        reporter=Reporter(CollectorRegistry(), INSTALLATION),
        poll_s=0.05,
    )
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0.2)
    yield made, volume
    task.cancel()
    await asyncio.wait([task])


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.02)


def serves(made: MountedCertificates, leaf: Leaf) -> Callable[[], bool]:
    """Whether this pair is served."""
    return lambda: (
        made.serving.leaf is not None and made.serving.leaf.certificate == leaf.certificate
    )


async def test_swapped_volumes_are_followed(
    mounted: tuple[MountedCertificates, Volume],
) -> None:
    """Three rotations in a row are seen."""
    made, volume = mounted
    assert made.check()
    for _ in range(3):
        leaf = new_leaf()
        volume.write(leaf)
        await until(serves(made, leaf))
    assert made.check() is None


async def test_a_half_written_pair_is_not_served(
    mounted: tuple[MountedCertificates, Volume],
) -> None:
    """The certificate is new, the key still old: what was served is served on."""
    made, volume = mounted
    old, new = new_leaf(), new_leaf()
    volume.write(old)
    await until(serves(made, old))
    volume.write(replace(new, key_pem=old.key_pem))
    await asyncio.sleep(0.3)
    assert serves(made, old)()
    volume.write(new)
    await until(serves(made, new))


async def test_a_volume_that_appears_later_is_followed(tmp_path: Path) -> None:
    """The directory does not exist at the start."""
    made = MountedCertificates(
        *pair(tmp_path / "tls"),
        Lifetimes(),
        reporter=Reporter(CollectorRegistry(), INSTALLATION),
        poll_s=0.1,
    )
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0.2)
    volume = Volume(tmp_path / "tls")
    leaf = new_leaf()
    volume.write(leaf)
    await until(serves(made, leaf))
    task.cancel()
    await asyncio.wait([task])


@contextmanager
def no_descriptors() -> Iterator[None]:
    """As in a process that has none left: nothing can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_it_outlives_files_that_cannot_be_opened(tmp_path: Path) -> None:
    """Failures are counted, and the pair is served as soon as it can be read."""
    volume = Volume(tmp_path / "tls")
    registry = CollectorRegistry()
    made = MountedCertificates(
        *pair(volume.path),
        Lifetimes(),
        reporter=Reporter(registry, INSTALLATION),
        poll_s=0.1,
    )

    def failed() -> float:
        return registry.get_sample_value("gpu_fraction_certificate_load_failures_total") or 0.0

    with no_descriptors():
        task = asyncio.create_task(made.run())
        await until(lambda: failed() >= 3 or task.done())
    leaf = new_leaf()
    volume.write(leaf)
    await until(lambda: serves(made, leaf)() or task.done())
    assert serves(made, leaf)()
    task.cancel()
    await asyncio.wait([task])


async def test_a_chain_with_an_intermediate_is_served_whole(
    mounted: tuple[MountedCertificates, Volume],
) -> None:
    """What the issuer put behind the leaf is sent along."""
    made, volume = mounted
    leaf = new_leaf()
    volume.write(replace(leaf, chain_pem=f"# leaf\n{leaf.chain_pem}{AUTHORITY.certificate.pem}"))
    await until(serves(made, leaf))
    assert made.serving.leaf is not None
    assert made.serving.leaf.chain_pem == leaf.chain_pem + AUTHORITY.certificate.pem


async def test_it_is_ready_while_every_bundle_trusts_it(tmp_path: Path) -> None:
    """What is served and what is trusted come from two others: only both together work."""
    volume = Volume(tmp_path / "tls")
    volume.write(pki.issue_leaf(AUTHORITY, INSTALLATION.server_names, NOW, Lifetimes()))
    async with cluster() as api:
        made = MountedCertificates(
            *pair(volume.path),
            Lifetimes(),
            reporter=Reporter(CollectorRegistry(), INSTALLATION),
            cache=CertificateCache(api.client, INSTALLATION, with_secret=False),
        )
        assert made.check() == "the configurations have not been read yet"
        task = asyncio.create_task(made.run())
        await until(lambda: "no CA certificate" in (made.check() or ""))
        await api.set_bundles(AUTHORITY.certificate.pem)
        await until(lambda: made.check() is None)
        await api.set_bundles(pki.new_authority("else", NOW, Lifetimes()).certificate.pem)
        await until(lambda: "candidates exhausted" in (made.check() or ""))
        task.cancel()
        await asyncio.wait([task])
