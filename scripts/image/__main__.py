"""Build the container image without a container engine: ``make image``.

Writes an OCI archive, which ``ctr images import``, ``podman load``, ``skopeo copy oci-archive:``
and ``docker load`` read, and its bill of materials. Needs Debian 12's apt sources; not root.
``SOURCE_DATE_EPOCH`` is the image's time; without it, the commit's.
"""

import argparse
import os
import sys
from pathlib import Path

from scripts.distributions import DistributionError
from scripts.image.build import NAME, ROOT, Image, build, default_cache
from scripts.image.contents import MULTIARCH
from scripts.image.interpreter import native
from scripts.image.tree import ImageError
from scripts.version import VersionError, commit_time_s, current


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.image",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--architecture", choices=MULTIARCH, help="default: this machine's")
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="folder; default: dist")
    parser.add_argument("--name", default=NAME, help="repository; default: %(default)s")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    parser.add_argument(
        "--newest-debian",
        action="store_true",
        help="Debian's packages of today, not the locked ones; the result is not reproducible",
    )
    args = parser.parse_args(argv)
    try:
        epoch_s = int(os.environ.get("SOURCE_DATE_EPOCH") or commit_time_s(ROOT))
        image = build(
            args.to,
            current(ROOT),
            epoch_s,
            architecture=args.architecture or native(),
            cache=args.cache,
            name=args.name,
            newest_debian=args.newest_debian,
        )
    except (DistributionError, ImageError, VersionError, ValueError) as e:
        sys.stderr.write(f"error: {e}\n")
        return 1
    tell(image)
    return 0


def tell(image: Image) -> None:
    """Prints what was built and what takes its room."""
    for name, size in sorted(image.unpacked.items(), key=lambda item: -item[1]):
        if size >= 100_000:
            print(f"{size / 1e6:8.1f} MB  {name}")
    print(f"{sum(image.unpacked.values()) / 1e6:8.1f} MB  unpacked")
    print(f"{image.archive.stat().st_size / 1e6:8.1f} MB  {image.archive}")
    print(f"{image.reference} {image.digest}")


if __name__ == "__main__":
    sys.exit(main())
