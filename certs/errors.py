"""The errors of this package.

CertificateError
├── PkiError        a certificate or key is unreadable, or two things do not belong together
├── BundleError     a caBundle must not be published
└── LifetimeError   a lifetime or wait is out of its range
"""


class CertificateError(Exception):
    """The root of this package's errors."""


class PkiError(CertificateError, ValueError):
    """A certificate, key or chain is unreadable, or does not fit what it is checked against."""


class BundleError(CertificateError, ValueError):
    """A caBundle must not be published: the API server does not check it, so we do."""


class LifetimeError(CertificateError, ValueError):
    """A lifetime or wait is out of its range."""
