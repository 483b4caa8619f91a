"""What can go wrong here.

CertificateError
├── PkiError        a certificate or key is unreadable, or two things do not belong together
│   └── ChainError  a leaf does not chain to the certificates it is checked against
├── BundleError     a caBundle must not be published
└── LifetimeError   a lifetime, renewal point or wait is out of its range
"""

__all__ = ["BundleError", "CertificateError", "ChainError", "LifetimeError", "PkiError"]


class CertificateError(Exception):
    """The root of this package's errors."""


class PkiError(CertificateError, ValueError):
    """A certificate or key is unreadable, or a certificate and a key do not match."""


class ChainError(PkiError):
    """A leaf does not chain to the certificates it is checked against."""


class BundleError(CertificateError, ValueError):
    """A caBundle must not be published: the API server does not check it, so we do."""


class LifetimeError(CertificateError, ValueError):
    """A lifetime, renewal point or wait is out of its range."""
