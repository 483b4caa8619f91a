"""``kubectl scale`` against the sandbox's API server."""

import aiohttp

from gpu_fraction.sandbox.apiserver import ApiServer

PATH = "/apis/apps/v1/namespaces/default/deployments/d"


async def test_a_scale_is_read_and_written_without_the_rest() -> None:
    """Replicas change, generation counts it, and the pod template stays; pods have no scale."""
    api = ApiServer()
    template = {"spec": {"containers": [{"name": "main"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "d"}}, "template": template}
    api.add(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "default"},
            "spec": spec,
        }
    )
    merge = {"Content-Type": "application/merge-patch+json"}
    async with api.serve(), aiohttp.ClientSession(api.url) as session:
        async with session.get(f"{PATH}/scale") as answer:
            found = await answer.json()
        assert (found["kind"], found["spec"]) == ("Scale", {"replicas": 2})
        assert found["status"] == {"replicas": 0, "selector": "app=d"}
        async with session.patch(
            f"{PATH}/scale", data='{"spec":{"replicas":5}}', headers=merge
        ) as answer:
            assert (await answer.json())["spec"] == {"replicas": 5}
        found["metadata"].pop("resourceVersion")
        async with session.put(f"{PATH}/scale", json=found) as answer:
            assert (await answer.json())["spec"] == {"replicas": 2}
        async with session.get(PATH) as answer:
            deployment = await answer.json()
        assert deployment["spec"] == spec
        assert deployment["metadata"]["generation"] == 3
        async with session.get("/api/v1/namespaces/default/pods/p/scale") as answer:
            assert answer.status == 404
        async with session.get("/apis/apps/v1") as answer:
            names = [one["name"] for one in (await answer.json())["resources"]]
    assert "deployments/scale" in names
