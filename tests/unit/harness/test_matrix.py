"""The matrix runs the versions that its table names."""

from tests.cluster.matrix import environment_of


def test_nothing_names_programs_of_another_version() -> None:
    """The caller's own choice for single tests would else be run under each version's name."""
    others = {"KUBEBUILDER_ASSETS": "/a", "TEST_ASSET_KUBELET": "/b", "KUBECONFIG_TEST": "/c"}
    found = environment_of("1.34.4", {**others, "HOME": "/h", "KUBERNETES_VERSION": "1.37.2"})
    assert found == {"HOME": "/h", "KUBERNETES_VERSION": "1.34.4"}
