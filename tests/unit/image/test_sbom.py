"""The bill of materials: components, their files, and what the image is."""

from scripts.image.sbom import bill
from scripts.image.tree import Component

IMAGE = Component("gpu-fraction", "1.0", "pkg:oci/gpu-fraction@sha256%3Aab", ("Apache-2.0",))
PARTS = (
    Component("b", "2", "pkg:pypi/b@2", ("MIT",), "cd"),
    Component("a", "1", "pkg:deb/debian/a@1"),
)
FILES = {"pkg:pypi/b@2": ["/b/2", "/b/1"], "pkg:deb/debian/a@1": []}


def test_components_name_their_files() -> None:
    """Sorted, so that the document follows from the image alone."""
    made = bill(IMAGE, "sha256:ab", 86_400, PARTS, FILES)
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    first, second = made["components"]
    assert first["purl"] == "pkg:deb/debian/a@1"
    assert "licenses" not in first
    assert second == {
        "type": "library",
        "bom-ref": "pkg:pypi/b@2",
        "name": "b",
        "version": "2",
        "purl": "pkg:pypi/b@2",
        "licenses": [{"license": {"name": "MIT"}}],
        "hashes": [{"alg": "SHA-256", "content": "cd"}],
        "evidence": {"occurrences": [{"location": "/b/1"}, {"location": "/b/2"}]},
    }
    assert made["dependencies"][0]["dependsOn"] == ["pkg:deb/debian/a@1", "pkg:pypi/b@2"]


def test_the_document_follows_from_the_image() -> None:
    """The serial number is the image's, the time is given, and order does not matter."""
    made = bill(IMAGE, "sha256:ab", 86_400, PARTS, FILES)
    assert made == bill(IMAGE, "sha256:ab", 86_400, reversed(PARTS), FILES)
    assert made["metadata"]["timestamp"] == "1970-01-02T00:00:00Z"
    assert made["serialNumber"] != bill(IMAGE, "sha256:cd", 86_400, PARTS, FILES)["serialNumber"]
