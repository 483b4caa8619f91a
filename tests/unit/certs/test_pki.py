"""The certificates are what an API server, OpenSSL and we ourselves accept."""

import ipaddress
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from gpu_fraction.certs import pki, reading
from gpu_fraction.certs.certificate import Authority, Certificate, Leaf
from gpu_fraction.certs.lifetimes import Lifetimes
from gpu_fraction.certs.reading import PkiError
from gpu_fraction.certs.settings import Installation

NOW = datetime.now(UTC)
LIFETIMES = Lifetimes()
NAMES = Installation(service="webhook").server_names


@pytest.fixture(scope="module")
def authority() -> Authority:
    """A CA made now."""
    return pki.new_authority("webhook", NOW, LIFETIMES)


@pytest.fixture(scope="module")
def leaf(authority: Authority) -> Leaf:
    """A leaf of it."""
    return pki.issue_leaf(authority, NAMES, NOW, LIFETIMES)


def openssl(*arguments: str | Path) -> tuple[int, str]:
    """Exit status and output of openssl."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=30
    )
    return done.returncode, done.stdout + done.stderr


def test_openssl_verifies_the_chain_strictly(
    authority: Authority, leaf: Leaf, tmp_path: Path
) -> None:
    """OpenSSL's strict checks pass for every form of the Service's name, and no other name."""
    (tmp_path / "ca.pem").write_text(authority.certificate.pem)
    (tmp_path / "leaf.pem").write_text(leaf.chain_pem)
    common = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", tmp_path / "ca.pem"]
    for name in NAMES:
        assert openssl(*common, "-verify_hostname", name, tmp_path / "leaf.pem")[0] == 0
    status, output = openssl(*common, "-verify_hostname", "other.ns.svc", tmp_path / "leaf.pem")
    assert status != 0
    assert "hostname mismatch" in output


@pytest.mark.parametrize("identifier", [b"\x01" * 20, None], ids=["another way", "none"])
def test_openssl_verifies_a_leaf_of_a_ca_made_elsewhere(
    identifier: bytes | None, tmp_path: Path
) -> None:
    """A CA's key identifier may be computed in any way, or be missing."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "made elsewhere")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if identifier is not None:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(identifier), critical=False)
    ca_pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    leaf = pki.issue_leaf(reading.read_authority(ca_pem, key_pem), NAMES, NOW, LIFETIMES)
    (tmp_path / "ca.pem").write_bytes(ca_pem)
    (tmp_path / "leaf.pem").write_text(leaf.chain_pem)
    status, output = openssl("verify", "-CAfile", tmp_path / "ca.pem", tmp_path / "leaf.pem")
    assert status == 0, output


def test_openssl_refuses_another_ca(leaf: Leaf, tmp_path: Path) -> None:
    """A CA of the same maker does not verify another one's leaf."""
    other = pki.new_authority("webhook", NOW, LIFETIMES)
    (tmp_path / "ca.pem").write_text(other.certificate.pem)
    (tmp_path / "leaf.pem").write_text(leaf.chain_pem)
    assert openssl("verify", "-CAfile", tmp_path / "ca.pem", tmp_path / "leaf.pem")[0] != 0


def test_openssl_checkend_agrees_on_the_life(leaf: Leaf, tmp_path: Path) -> None:
    """The leaf is still valid a minute before its life is over, and not a minute after."""
    (tmp_path / "leaf.pem").write_text(leaf.chain_pem)
    left_s = (leaf.certificate.not_after - datetime.now(UTC)).total_seconds()
    common = ["x509", "-noout", "-in", tmp_path / "leaf.pem", "-checkend"]
    assert openssl(*common, str(int(left_s - 60)))[0] == 0
    assert openssl(*common, str(int(left_s + 60)))[0] == 1


def test_the_strict_profile_of_the_web_accepts_it(authority: Authority, leaf: Leaf) -> None:
    """Key identifiers, key usage and extended key usage are as the CA/Browser forum wants."""
    store = verification.Store(
        [x509.load_pem_x509_certificate(authority.certificate.pem.encode())]
    )
    verifier = (
        verification.PolicyBuilder()
        .store(store)
        .time(NOW)
        .build_server_verifier(x509.DNSName(NAMES[0]))
    )
    chain = verifier.verify(x509.load_pem_x509_certificate(leaf.chain_pem.encode()), [])
    assert len(chain) == 2


def test_the_parts_of_a_leaf(authority: Authority, leaf: Leaf) -> None:
    """P-256, a large random serial, dated back an hour, never longer than its CA."""
    parsed = x509.load_pem_x509_certificate(leaf.chain_pem.encode())
    key = parsed.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert parsed.serial_number.bit_length() > 64
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "webhook.gpu-fraction-system.svc",
        "webhook",
        "webhook.gpu-fraction-system",
        "webhook.gpu-fraction-system.svc.cluster.local",
    ]
    assert abs(parsed.not_valid_before_utc - (NOW - timedelta(hours=1))) < timedelta(seconds=2)
    late = NOW + timedelta(days=360)
    last = pki.issue_leaf(authority, NAMES, late, LIFETIMES)
    assert last.certificate.not_after == authority.certificate.not_after


def test_no_two_certificates_share_serial_or_subject() -> None:
    """A verifier that looks CAs up by subject never meets two; serials never repeat."""
    made = [pki.new_authority("webhook", NOW, LIFETIMES) for _ in range(20)]
    parsed = [x509.load_pem_x509_certificate(a.certificate.pem.encode()) for a in made]
    assert len({c.serial_number for c in parsed}) == 20
    assert len({c.subject for c in parsed}) == 20


def test_a_clock_that_is_behind_still_signs_something_usable(authority: Authority) -> None:
    """A leaf is dated from its CA when the signer's clock is before the CA's making."""
    leaf = pki.issue_leaf(authority, NAMES, NOW - timedelta(days=400), LIFETIMES)
    pki.check_chain(leaf.chain_pem, [authority.certificate], NAMES[0], NOW)


def test_long_names_fit() -> None:
    """The longest Service and namespace names make a valid certificate."""
    names = Installation(service="s" * 63, namespace="n" * 63).server_names
    authority = pki.new_authority("s" * 63, NOW, LIFETIMES)
    leaf = pki.issue_leaf(authority, names, NOW, LIFETIMES)
    pki.check_chain(leaf.chain_pem, [authority.certificate], names[0], NOW)


def test_ip_addresses_are_names_too(authority: Authority) -> None:
    """A configuration that dials an address finds it in the leaf."""
    leaf = pki.issue_leaf(authority, [*NAMES, "127.0.0.1"], NOW, LIFETIMES)
    pki.check_chain(leaf.chain_pem, [authority.certificate], "127.0.0.1", NOW)
    with pytest.raises(PkiError):
        pki.check_chain(leaf.chain_pem, [authority.certificate], "127.0.0.2", NOW)


@pytest.mark.parametrize(
    ("at", "names"),
    [
        pytest.param(NOW + timedelta(days=31), NAMES[0], id="leaf expired"),
        pytest.param(NOW - timedelta(days=1), NAMES[0], id="not yet valid"),
        pytest.param(NOW, "other.ns.svc", id="other name"),
    ],
)
def test_chain_refusals(authority: Authority, leaf: Leaf, at: datetime, names: str) -> None:
    """What an API server would refuse is refused, and the message names what was dialled."""
    with pytest.raises(PkiError, match=names):
        pki.check_chain(leaf.chain_pem, [authority.certificate], names, at)


def test_chain_needs_the_right_ca(leaf: Leaf) -> None:
    """Neither another CA nor an empty set of them will do."""
    other = pki.new_authority("webhook", NOW, LIFETIMES)
    with pytest.raises(PkiError):
        pki.check_chain(leaf.chain_pem, [other.certificate], NAMES[0], NOW)
    with pytest.raises(PkiError, match="no CA certificate"):
        pki.check_chain(leaf.chain_pem, [], NAMES[0], NOW)
    stranger = self_signed("else.ns.svc")
    with pytest.raises(PkiError, match="no CA certificate"):
        pki.check_chain(leaf.chain_pem, [stranger], NAMES[0], NOW)


def self_signed(*names: str) -> Certificate:
    """A leaf that signed itself, without a subject, as cert-manager's selfSigned issuer makes."""
    key = ec.generate_private_key(ec.SECP256R1())
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n)
                    for n in names
                ]
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    return reading.facts_of(built)


@pytest.mark.parametrize("name", [NAMES[0], "a.pods.example", "Hook.Example", "10.0.0.1"])
def test_a_leaf_in_the_bundle_is_its_own_root(name: str) -> None:
    """As Go's verifier has it: what is trusted itself needs no CA, for the names it has."""
    leaf = self_signed(NAMES[0], "*.pods.example", "hook.example", "10.0.0.1")
    other = pki.new_authority("webhook", NOW, LIFETIMES).certificate
    pki.check_chain(leaf.pem, [other, leaf], name, NOW)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("other.ns.svc", NOW),
        ("pods.example", NOW),
        ("a.b.pods.example", NOW),
        (".pods.example", NOW),
        ("10.0.0.2", NOW),
        (NAMES[0], NOW - timedelta(hours=2)),
        (NAMES[0], NOW + timedelta(days=91)),
    ],
)
def test_a_leaf_in_the_bundle_needs_name_and_dates_too(name: str, at: datetime) -> None:
    """Being trusted itself makes it valid for nothing else, and not for ever."""
    leaf = self_signed(NAMES[0], "*.pods.example", "10.0.0.1")
    with pytest.raises(PkiError, match=name):
        pki.check_chain(leaf.pem, [leaf], name, at)


def test_a_key_of_another_certificate_is_refused(authority: Authority, leaf: Leaf) -> None:
    """A half-written pair is noticed before anything is done with it."""
    other = pki.new_authority("webhook", NOW, LIFETIMES)
    with pytest.raises(PkiError, match="does not belong"):
        reading.read_authority(authority.certificate.pem, other.key_pem)
    with pytest.raises(PkiError, match="does not belong"):
        reading.read_leaf(leaf.chain_pem, other.key_pem)
    with pytest.raises(PkiError, match="not a CA"):
        reading.read_authority(leaf.chain_pem, leaf.key_pem)
    with pytest.raises(PkiError, match="no readable private key"):
        reading.read_leaf(leaf.chain_pem, "nonsense")
    with pytest.raises(PkiError, match="no readable certificate"):
        reading.read_leaf(b"", leaf.key_pem)


def test_errors_and_representations_hold_no_key(authority: Authority, leaf: Leaf) -> None:
    """Neither a log of an object nor an error message carries a key."""
    assert "PRIVATE" not in f"{authority!r} {leaf!r} {authority}"
    broken = leaf.key_pem.replace("PRIVATE", "PUBLIC")
    with pytest.raises(PkiError) as caught:
        reading.read_leaf(leaf.chain_pem, broken)
    assert broken.splitlines()[1] not in str(caught.value)


def test_certificates_are_read_back_with_text_between_them(authority: Authority) -> None:
    """A bundle may carry comments, as the API server allows."""
    other = pki.new_authority("webhook", NOW, LIFETIMES)
    text = f"# first\n{authority.certificate.pem}\n# second\n{other.certificate.pem}"
    assert reading.read_certificates(text) == [authority.certificate, other.certificate]
