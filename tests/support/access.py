"""How tests reach an API server."""

from gpu_fraction.kube.access import Access, AccessSource


def fixed(access: Access) -> AccessSource:
    """A source that always finds the same."""

    async def find() -> Access:
        return access

    return AccessSource(find)
