"""Whatever a Secret or a caBundle holds, it is read, and what was put right stays right."""

import base64
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_fraction.certs import pki, state
from gpu_fraction.certs.bundle import read_bundle
from gpu_fraction.certs.lifetimes import Lifetimes

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CAS = [pki.new_authority("webhook", NOW, Lifetimes()) for _ in range(2)]
PEMS = [text.encode() for ca in CAS for text in (ca.certificate.pem, ca.key_pem)]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A certificate or key in which some bytes of the DER are other ones."""
    header, *body, footer = draw(st.sampled_from(PEMS)).splitlines()
    der = bytearray(base64.b64decode(b"".join(body)))
    for _ in range(draw(st.integers(1, 4))):
        der[draw(st.integers(0, len(der) - 1))] = draw(st.integers(0, 255))
    return b"\n".join([header, base64.encodebytes(bytes(der)), footer])


CONTENT = st.one_of(
    st.sampled_from(PEMS),
    damaged(),
    st.binary(max_size=80),
    st.lists(st.sampled_from(PEMS), max_size=3).map(b"".join),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(CONTENT)
def test_any_bundle_is_read(pem: bytes) -> None:
    """It is certificates, or it is unreadable; nothing is raised."""
    bundle = read_bundle("x", pem)
    assert bundle.readable or bundle.certificates == ()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from(state.DATA_KEYS), CONTENT),
    st.dictionaries(
        st.sampled_from(state.ANNOTATIONS),
        st.one_of(st.sampled_from([*state.Phase, "2029-12-31T00:00:00Z"]), st.text(max_size=30)),
    ),
)
def test_any_secret_is_read(data: dict[str, bytes], annotations: dict[str, str]) -> None:
    """What is made of it can be stored and read again, and then there is no problem left."""
    found = state.read_state(data, annotations, NOW)
    again = state.read_state(state.data_of(found), state.annotations_of(found), NOW)
    assert again == found
    assert again.problems == ()
