"""The backend that a pod selects with its own annotation."""

import copy
import json

import jsonpatch
import pytest

from gpu_fraction.domain import keys
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import Answer, decode, encode
from tests.builders.pods import Raw, pod
from tests.support.reviews import body, patch_of, review, rewriting

SETTINGS = {"namespace_backends": "hami,nvidia"}
ALLOWED = {**SETTINGS, "allow_pod_backend": "true"}
NATIVE = pod({"gpu-fraction": "1", keys.BACKEND: "native"})
HAMI = pod({"gpu-fraction": "1", keys.BACKEND: "hami"})


def decider(default: str | None = None, **settings: str) -> Decider:
    """Of a cluster where one namespace has chosen NVIDIA's device plugin."""
    labels = {"team-n": "nvidia"}
    return Decider(
        rewriting(**settings),
        backend_label=labels.get,
        default_fraction=lambda _namespace, _pod: default,
    )


def mutate(by: Decider, raw: Raw, namespace: str = "team-a") -> Answer:
    """The answer to the pod's creation."""
    return by.mutate(decode(body(review(raw, namespace=namespace))))


def made(by: Decider, raw: Raw) -> Raw:
    """The pod as the API server stores it."""
    answer = mutate(by, raw)
    assert answer.allowed, answer.message
    operations = patch_of(json.loads(encode("u", answer))["response"])
    stored: Raw = jsonpatch.JsonPatch(operations).apply(copy.deepcopy(raw))
    return stored


@pytest.mark.parametrize("namespace", ["team-a", "team-n"])
@pytest.mark.parametrize("backend", ["native", "hami", "nvidia"])
def test_a_pod_selects_any_configured_backend(namespace: str, backend: str) -> None:
    """Before what its namespace selects, and the default."""
    raw = pod({"gpu-fraction": "1", keys.BACKEND: backend})
    assert mutate(decider(**ALLOWED), raw, namespace).audit["backend"] == backend


def test_the_second_pass_decides_as_the_first() -> None:
    """The stored pod is valid, and a repeated call changes nothing."""
    by = decider(**ALLOWED)
    stored = made(by, HAMI)
    assert stored["spec"]["schedulerName"] == "hami-scheduler"
    assert by.validate(decode(body(review(stored)))).allowed
    assert made(by, stored) == stored


def test_pods_that_differ_in_their_choice_have_their_own_answers() -> None:
    """One webhook, one template."""
    by = decider(**ALLOWED)
    schedulers = [made(by, raw)["spec"]["schedulerName"] for raw in (NATIVE, HAMI, NATIVE)]
    assert schedulers == ["gpu-fraction-scheduler", "hami-scheduler", "gpu-fraction-scheduler"]


@pytest.mark.parametrize(
    ("namespace", "backend"), [("team-a", "native"), ("team-n", "nvidia"), ("unknown", "native")]
)
def test_where_pods_may_not_select_the_refusal_names_setting_and_backend(
    namespace: str, backend: str
) -> None:
    """Also of the backend that the pod has anyway: a manifest works or not from the start."""
    for path in ("mutate", "validate"):
        by = decider(**SETTINGS)
        answer = getattr(by, path)(decode(body(review(NATIVE, namespace=namespace))))
        assert answer == Answer(
            allowed=False,
            message=(
                'metadata.annotations[gpu-fraction.dev/backend]: "native" is refused, pods do not '
                f"select their backend here; remove it, the pod's backend is {backend} "
                "(cluster setting allow_pod_backend)"
            ),
            audit={"decision": "refused"},
        )


@pytest.mark.parametrize(
    ("wanted", "meant"), [("kai", ""), ("", ""), ("nvidea", '; did you mean "nvidia"?')]
)
def test_a_backend_that_is_not_configured_is_refused(wanted: str, meant: str) -> None:
    """A known one too: the cluster does not run that stack."""
    raw = pod({"gpu-fraction": "1", keys.BACKEND: wanted})
    assert mutate(decider(**ALLOWED), raw).message == (
        f'metadata.annotations[gpu-fraction.dev/backend]: "{wanted}" is not a backend of this '
        f"cluster{meant}; allowed: native, hami, nvidia"
    )


@pytest.mark.parametrize("default", [None, "0.1"])
def test_the_choice_alone_asks_for_no_gpu(default: str | None) -> None:
    """Not even where the namespace has a share for pods that ask for a GPU without one."""
    answer = mutate(decider(default, **ALLOWED), pod({keys.BACKEND: "hami"}))
    assert answer.message == (
        "metadata.annotations[gpu-fraction.dev/backend]: does not request a GPU by itself; "
        "add gpu-fraction or gpu-memory"
    )


def test_the_default_share_is_given_on_the_chosen_backend() -> None:
    """The namespace's share, and the pod's stack."""
    raw = pod({keys.PLACEMENT: "spread", keys.BACKEND: "hami"})
    answer = mutate(decider("0.1", **ALLOWED), raw)
    assert (answer.audit["backend"], answer.audit["fraction"]) == ("hami", "main=1x0.1")


@pytest.mark.parametrize("backend", ["native", None])
def test_a_pod_that_runs_keeps_its_backend(backend: str | None) -> None:
    """The annotation neither changes nor goes."""
    by = decider(**ALLOWED)
    old = made(by, HAMI)
    new = copy.deepcopy(old)
    if backend is None:
        del new["metadata"]["annotations"][keys.BACKEND]
    else:
        new["metadata"]["annotations"][keys.BACKEND] = backend
    answer = by.validate(decode(body(review(new, old, operation="UPDATE"))))
    assert answer.message == (
        "metadata.annotations[gpu-fraction.dev/backend]: cannot change after the pod is created; "
        "create a new pod with the new value"
    )
