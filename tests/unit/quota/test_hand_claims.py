"""Claims that somebody wrote are charged once; lists are trued down to what was chosen."""

from gpu_fraction.domain import dra
from gpu_fraction.domain.pod import Container, ResourceClaim, Spec
from gpu_fraction.quota.claims import ClaimRecord
from gpu_fraction.quota.pods import PodRecord
from tests.builders.pods import hand_claim, quota_pod
from tests.support.quota_world import World, quota

HASH = "0123456789abcdef" * 2
EITHER = f"gpu-fraction-10240mi-of-24576-81920-{HASH}"
"""A template of ours: 416 thousandths of the smaller card, 125 of the larger."""
LARGEST = {dra.CHARGED: dra.LARGEST}


def using(uid: str, claim: ResourceClaim, node: str | None = None) -> PodRecord:
    """A pod that uses a claim and nothing else."""
    spec = Spec(containers=[Container("main")], resource_claims=[claim], node_name=node)
    return PodRecord(metadata=quota_pod(uid).metadata, spec=spec)


async def test_a_claim_is_charged_until_it_is_gone() -> None:
    """From its creation, whether or not a pod uses it."""
    async with World(quota(hard={"cores": "2", "gpus": "2", "memory": "160Gi"})).running() as w:
        assert (await w.create_claim(hand_claim("c1"))).final
        assert w.reserved() == ["c1"]
        await w.settle()
        assert (w.used("cores"), w.used("gpus"), w.used("memory")) == ("1", "1", "80Gi")
        assert w.used("pods") == "1"
        assert not w.reserved()
        assert w.status().claims_resource_version
        refused = await w.create_claim(hand_claim("c2", cards=2))
        [refusal] = refused.refusals
        assert refusal.message == (
            "exceeded GPU quota: team-a, requested: cores=2,gpus=2,memory=160Gi, used: "
            "cores=1,gpus=1,memory=80Gi, limited: cores=2,gpus=2,memory=160Gi"
        )
        w.server.delete_claim("c1")
        await w.settle()
        assert w.used("cores") == "0"
        assert (await w.create_claim(hand_claim("c2", cards=2))).final


async def test_pods_that_use_a_charged_claim_cost_nothing() -> None:
    """One or several of them."""
    async with World(quota(hard={"cores": "1", "pods": "1"})).running() as w:
        assert (await w.create_claim(hand_claim("c1", name="shared"))).final
        for uid in ("p1", "p2"):
            pod = using(uid, ResourceClaim("gpu", resource_claim_name="shared"))
            assert (await w.create(pod)).final
        await w.settle()
        assert (w.used("cores"), w.used("pods")) == ("1", "1")


async def test_a_claim_of_our_template_is_its_pods() -> None:
    """The pod is charged, the claim is not."""
    async with World(quota(hard={"cores": "1"})).running() as w:
        quarter = f"gpu-fraction-250c-250m-{HASH}"
        pod = using("p1", ResourceClaim("gpu", resource_claim_template_name=quarter))
        assert (await w.create(pod)).final
        claim = hand_claim("c1", labels={dra.CHARGED: dra.EXACT}, pod=("p1", "gpu"))
        assert (await w.create_claim(claim)).final
        await w.settle()
        assert w.used("cores") == "250m"
        assert not w.reserved()


async def test_a_claim_and_a_pod_of_one_name_are_charged_both() -> None:
    """A name costs the most of its objects of one kind only."""
    async with World(quota(hard={"cores": "1"})).running() as w:
        assert (await w.create(quota_pod("p1", cores=1000, name="same"))).final
        assert (await w.create_claim(hand_claim("c1", name="same"))).refusals


async def test_a_claim_that_is_never_stored_frees_its_reservation() -> None:
    """After the time of pods."""
    async with World(quota(hard={"cores": "1"})).running() as w:
        assert (await w.create_claim(hand_claim("c1"), stored=False)).final
        await w.settle()
        assert w.reserved() == ["c1"]
        w.now_s += 46
        await w.settle()
        assert not w.reserved()


async def test_a_controller_whose_claims_are_behind_lists_them() -> None:
    """So its count does not free what an earlier one has counted."""
    async with World(quota(hard={"cores": "2"})).running() as w:
        old = w.new_counter()
        assert (await w.create_claim(hand_claim("c1"))).final
        await w.settle()
        assert not w.reserved()
        old.watch.deliver(old.take)
        await old.controller.reconcile("team-a")
        assert w.used("cores") == "1"


def listed(uid: str, given: str = "") -> ClaimRecord:
    """The claim of pod ``uid``, of one of two sizes."""
    return hand_claim(f"c-{uid}", labels=LARGEST, pod=(uid, "gpu"), given=given)


async def test_a_list_is_trued_down_to_what_was_chosen() -> None:
    """Once the pod is bound: before, the scheduler may still give it another card."""
    claim = ResourceClaim("gpu", resource_claim_template_name=EITHER)
    async with World(quota(hard={"cores": "1", "memory": "80Gi"})).running() as w:
        assert (await w.create(using("p1", claim))).final
        w.server.put_claim(listed("p1"))
        await w.settle()
        assert w.used("cores") == "416m"
        w.server.put_claim(listed("p1", "gpu/m81920"))
        await w.settle()
        assert w.used("cores") == "416m"
        w.server.put_pod(using("p1", claim, node="n"))
        await w.settle()
        assert (w.used("cores"), w.used("memory")) == ("125m", "10Gi")
        assert w.counter.rooms[-1] == "team-a/team-a"
        w.server.delete_claim("c-p1")
        w.server.delete_pod("p1")
        await w.settle()
        assert w.used("cores") == "0"


async def test_what_no_template_of_ours_says_trues_nothing_down() -> None:
    """Another size, another request, another pod's claim, another driver's form."""
    claim = ResourceClaim("gpu", resource_claim_template_name=EITHER)
    async with World(quota(hard={"cores": "2"})).running() as w:
        assert (await w.create(using("p1", claim, node="n"))).final
        for number, given in enumerate(("gpu/m1", "gpu", "gpu/m24576", "gpu/mx", "m81920")):
            w.server.put_claim(
                hand_claim(f"c{number}", labels=LARGEST, pod=("p1", "gpu"), given=given)
            )
            await w.settle()
            assert w.used("cores") == "416m", given
            w.server.delete_claim(f"c{number}")
        w.server.put_claim(hand_claim("c9", labels=LARGEST, pod=("p1", "x"), given="gpu/m81920"))
        w.server.put_claim(hand_claim("c8", labels=LARGEST, pod=("p2", "gpu"), given="gpu/m81920"))
        await w.settle()
        assert w.used("cores") == "416m"


async def test_a_claim_is_charged_for_every_limited_model() -> None:
    """Its cards are not known, and may change."""
    limits = {"cores": "4", "models": {"A100": {"gpus": 1}}}
    async with World(quota(hard=limits)).running() as w:
        assert (await w.create_claim(hand_claim("c1"))).final
        refused = await w.create_claim(hand_claim("c2"))
        assert "A100.gpus=1" in refused.refusals[0].message
