"""The templates of claims: their specifications, and names that tell the amounts."""

import re
from typing import Any

import pytest

from gpu_fraction.domain import claim_template, dra, models
from gpu_fraction.domain.claim_template import Shape, parse, proves, template
from gpu_fraction.domain.demand import Demand
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.request import Isolation, Request, Slice
from tests.builders.pods import container, pod, typed

HASH = "0123456789abcdef" * 2


def made(
    *sizes: int,
    models: tuple[str, ...] = (),
    not_models: tuple[str, ...] = (),
    uuids: tuple[str, ...] = (),
    isolation: Isolation = "preferred",
    **share: Any,
) -> claim_template.Template:
    """The template of one container's share."""
    part = Slice("main", **share)
    request = Request((part,), models, not_models, uuids, isolation=isolation)
    return template(Shape(part, sizes), request)


def devices(found: claim_template.Template) -> dict[str, Any]:
    """What its claims ask for."""
    inner: dict[str, Any] = found.spec["spec"]["devices"]
    return inner


def test_a_share_is_one_exact_request_that_knows_no_size() -> None:
    """Both amounts are named, because a claim takes all of what it does not name."""
    assert devices(made(core_milli=250, memory_milli=333)) == {
        "requests": [
            {
                "name": "gpu",
                "exactly": {
                    "deviceClassName": "fraction.gpu-fraction.dev",
                    "allocationMode": "ExactCount",
                    "count": 1,
                    "capacity": {
                        "requests": {
                            "gpu-fraction.dev/cores": "250",
                            "gpu-fraction.dev/memory_ppm": "333k",
                        }
                    },
                },
            }
        ]
    }


def test_whole_cards_are_devices_of_another_class() -> None:
    """As many different ones as asked."""
    [request] = devices(made(cards=2, core_milli=1000, memory_milli=1000))["requests"]
    assert request["exactly"] == {
        "deviceClassName": "whole.gpu-fraction.dev",
        "allocationMode": "ExactCount",
        "count": 2,
    }


def test_memory_is_one_alternative_a_size_rounded_up() -> None:
    """Never less than asked, and compute in proportion where none was asked."""
    [request] = devices(made(24576, 81920, memory_mib=10240))["requests"]
    assert [
        (one["name"], *one["capacity"]["requests"].values()) for one in request["firstAvailable"]
    ] == [("m24576", "416", "416667"), ("m81920", "125", "125k")]
    attribute = "device.attributes['gpu-fraction.dev'].memoryMiB"
    assert [one["selectors"] for one in request["firstAvailable"]] == [
        [{"cel": {"expression": f"has({attribute}) && {attribute} == {size}"}}]
        for size in (24576, 81920)
    ]


@pytest.mark.parametrize("size", [7680, 15360, 24576, 40960, 81559, 81920, 143771, 294912])
def test_an_amount_of_memory_comes_out_exact(size: int) -> None:
    """The driver gives the millionths rounded down, which is the very number of MiB."""
    for mib in (1, 3, 1000, 4097, size - 1, size):
        [request] = devices(made(size, memory_mib=mib))["requests"]
        [one] = request["firstAvailable"]
        ppm = int(
            one["capacity"]["requests"][dra.MEMORY_PPM].replace("M", "000k").replace("k", "000")
        )
        assert size * ppm // dra.CARD_MEMORY_PPM == mib
        assert ppm <= dra.CARD_MEMORY_PPM


def test_isolation_is_a_configuration_only_where_it_says_something() -> None:
    """Kueue takes no claims with one."""
    share = {"core_milli": 250, "memory_milli": 250}
    assert "config" not in devices(made(**share))
    for isolation in ("required", "none"):
        [config] = devices(made(isolation=isolation, **share))["config"]
        assert config["opaque"] == {
            "driver": "gpu-fraction.dev",
            "parameters": {
                "apiVersion": "gpu-fraction.dev/v1alpha1",
                "kind": "ShareConfig",
                "isolation": isolation,
            },
        }


@pytest.mark.parametrize(
    ("sizes", "share", "enforced"),
    [
        ((), {"core_milli": 250, "memory_milli": 250}, ["Memory", "Compute"]),
        ((), {"core_milli": 1000, "memory_milli": 250}, ["Memory"]),
        ((), {"core_milli": 250, "memory_milli": 1000}, ["Compute"]),
        ((), {"core_milli": 1000, "memory_milli": 1000}, []),
        ((81920,), {"memory_mib": 8192}, ["Memory", "Compute"]),
        ((81920,), {"core_milli": 1000, "memory_mib": 8192}, ["Memory"]),
        ((81920,), {"core_milli": 1000, "memory_mib": 81920}, []),
    ],
)
def test_required_isolation_takes_only_cards_that_enforce_the_share(
    sizes: tuple[int, ...], share: dict[str, int], enforced: list[str]
) -> None:
    """Each part of it that is not all of the card."""
    [request] = devices(made(*sizes, isolation="required", **share))["requests"]
    one = request["exactly"] if not sizes else request["firstAvailable"][0]
    texts = [selector["cel"]["expression"] for selector in one.get("selectors", ())]
    start = "device.attributes['gpu-fraction.dev'].enforces"
    assert [t for t in texts if start in t] == [f"has({start}{e}) && {start}{e}" for e in enforced]


def pattern_of(expression: str) -> re.Pattern[str]:
    """The regular expression in it; RE2 reads these as Python does."""
    (found,) = re.findall(r'matches\("(.*)"\)', expression)
    return re.compile(found.replace("\\\\", "\\"))


@pytest.mark.parametrize(
    "wanted", ["A100", "rtx 6000", "A100-80GB", "RTX-PRO 6000", "H100", "L40"]
)
def test_a_model_means_the_same_as_on_the_native_backend(wanted: str) -> None:
    """Whole words, side by side, whatever their case."""
    [expression] = claim_template.expressions(
        Request((Slice("m", memory_milli=1, core_milli=1),), (wanted,))
    )
    for card in (
        *("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe", "NVIDIA RTX 6000 Ada Generation"),
        *("Quadro RTX 6000", "NVIDIA RTX PRO 6000 Blackwell", "NVIDIA H100 80GB HBM3", "H100"),
        *("NVIDIA GH100", "NVIDIA L40S", "NVIDIA L40", "NVIDIA-A100-80GB", "A1000"),
    ):
        assert bool(pattern_of(expression).search(card)) is models.matches(wanted, card), card


def test_words_with_signs_of_patterns_mean_themselves() -> None:
    """A plus, a point or a slash in a model's name."""
    [expression] = claim_template.expressions(
        Request((Slice("m", memory_milli=1, core_milli=1),), (), ("A1.0+",))
    )
    assert expression.startswith("!has(")
    assert pattern_of(expression).search("NVIDIA A1.0+ X")
    assert not pattern_of(expression).search("NVIDIA A110 X")


def test_nobody_writes_expressions_through_a_name() -> None:
    """Quotes of an annotation that came by another road stay inside their literal."""
    evil = 'x") || true || "\\'
    part = Slice("m", memory_milli=1, core_milli=1)
    for request in (Request((part,), (evil,)), Request((part,), uuids=(evil,))):
        [expression] = claim_template.expressions(request)
        assert re.fullmatch(r'[^"]*"(?:[^"\\]|\\.)*"[^"]*', expression)
    assert "false" in claim_template.expressions(Request((part,), ("- -",)))[0]


@pytest.mark.parametrize(
    ("name", "demand"),
    [
        ("250c-250m", Demand(1, 250, 0, 250)),
        ("1000c-1m-x16", Demand(16, 16000, 0, 16)),
        ("whole-x2", Demand(2, 2000, 0, 2000)),
        ("whole", Demand(1, 1000, 0, 1000)),
        ("300c-8192mi-of-81920", Demand(1, 300, 8192)),
        ("10240mi-of-24576-81920-x2", Demand(2, 832, 20480)),
        ("81920mi-of-81920", Demand(1, 1000, 81920)),
    ],
)
def test_a_name_tells_what_it_costs(name: str, demand: Demand) -> None:
    """Of several sizes, the one on which it costs most."""
    found = parse(f"gpu-fraction-{name}-{HASH}")
    assert found is not None
    assert found.words == name
    assert found.demand == demand


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nic",
        "gpu-fraction-",
        "gpu-fraction-0",
        "gpu-fraction-quarter",
        f"gpu-fraction-{HASH}",
        "gpu-fraction-250c-250m",
        f"gpu-fraction-250c-250m-{HASH}0",
        f"gpu-fraction-250c-250m-{HASH[1:]}",
        f"gpu-fraction-250c-250m-{HASH.upper()}",
        f"x-gpu-fraction-250c-250m-{HASH}",
        f"gpu-fraction-250c-250m-{HASH}\n",
        f"gpu-fraction-0250c-250m-{HASH}",
        f"gpu-fraction-0c-250m-{HASH}",
        f"gpu-fraction-1001c-250m-{HASH}",
        f"gpu-fraction-250c-1001m-{HASH}",
        f"gpu-fraction-250m-{HASH}",
        f"gpu-fraction-1000c-1000m-{HASH}",
        f"gpu-fraction-250c-8192mi-{HASH}",
        f"gpu-fraction-250c-8192mi-of-{HASH}",
        f"gpu-fraction-250c-8192mi-of{'-9000' * 9}-{HASH}",
        f"gpu-fraction-250c-250m-of-81920-{HASH}",
        f"gpu-fraction-whole-x1-{HASH}",
        f"gpu-fraction-whole-x0-{HASH}",
        f"gpu-fraction-whole-x99999-{HASH}",
        f"gpu-fraction-{'9' * 13}mi-of-1-{HASH}",
        f"gpu-fraction-{'9' * 300}m-{HASH}",
        f"gpu-fraction-٢٥٠c-250m-{HASH}",
    ],
)
def test_other_names_are_no_template_of_ours(name: str) -> None:
    """None of them can have been made here, so they cost nothing."""
    assert parse(name) is None
    assert not proves(name, {})


def test_a_template_is_the_one_in_its_name_or_not() -> None:
    """Any other specification under that name is seen."""
    one, other = made(core_milli=250, memory_milli=250), made(core_milli=500, memory_milli=250)
    assert proves(one.name, one.spec)
    assert not proves(one.name, other.spec)
    assert not proves(one.name.replace("250c", "100c"), other.spec)
    assert not proves(one.name, None)


def test_what_the_server_adds_to_a_template_is_told_apart_from_what_others_add() -> None:
    """An empty time beside the label of the claims, but nothing else, and not no label."""
    one = made(core_milli=250, memory_milli=250)
    ours = one.spec["metadata"]
    assert proves(one.name, {**one.spec, "metadata": {**ours, "creationTimestamp": None}})
    for added in ({}, None, {"labels": {"a": "b"}}, {**ours, "annotations": {"a": "b"}}):
        assert not proves(one.name, {**one.spec, "metadata": added})


def test_a_claim_says_that_its_pod_is_charged_and_whether_for_what_it_is_given() -> None:
    """So nobody charges it again, and whoever trues down looks at lists alone."""
    found = [
        made(core_milli=250, memory_milli=250),
        made(81920, memory_mib=10240),
        made(24576, 81920, memory_mib=10240, core_milli=100),
        made(24576, 81920, memory_mib=10240),
    ]
    labels = [one.spec["metadata"]["labels"][dra.CHARGED] for one in found]
    assert labels == [dra.EXACT, dra.EXACT, dra.EXACT, dra.LARGEST]


def used(*names: str) -> dict[str, Any]:
    """A container that uses claims of the pod."""
    return container(resources=None) | {"resources": {"claims": [{"name": n} for n in names]}}


def claiming(*containers: dict[str, Any], **templates: str) -> Pod:
    """A pod with claims by name."""
    claims = [{"name": n, "resourceClaimTemplateName": t} for n, t in templates.items()]
    return typed(pod(None, *containers, resourceClaims=claims))


def test_the_users_of_claims_are_found() -> None:
    """Of ours alone, each container once, and a claim without users as well."""
    quarter = f"gpu-fraction-250c-250m-{HASH}"
    made = claiming(
        used("a", "nic", "a"), used() | {"name": "side"}, a=quarter, nic="nic", free=quarter
    )
    assert [(index, name) for index, name, _ in claim_template.claims_of(made)] == [
        (0, "a"),
        (2, "free"),
    ]
    assert claim_template.holders(made) == {"a": ["main"], "free": []}
