"""What a namespace's admin may try, one row an attempt, by the lines of docs/threat-model.md."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from gpu_fraction.domain import dra, keys
from tests.builders.pods import Raw, container, env
from tests.builders.pods import pod as built
from tests.cluster.harness.api_client import (
    APPLY_PATCH,
    JSON,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
)

OWN, OTHER, SYSTEM = "hostile-own", "hostile-other", "gpu-fraction-system"
TENANT, DEBUGGER = "mallory", "oscar"
"""The second may use every subresource of pods and claims as well, such as for kubectl debug; the
role admin has none of them on Kubernetes 1.37."""

SUBRESOURCES = {
    "": ("pods/ephemeralcontainers", "pods/resize", "pods/status", "pods/binding", "bindings"),
    "resource.k8s.io": ("resourceclaims/status", "resourceclaims/binding"),
}
"""What the second may write, by API group."""

NODE, THEIRS, CLAIM = "hostile-node", "theirs", "made-by-kubernetes"
QUARTER = {keys.FRACTION: "0.25"}
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "gpu", "controller": True}
GATE = keys.PREFIX + "quota"
RELEASED = keys.PREFIX + "released"
COUNT_LABELS = {
    "aliyun.com/gpu-count": "aliyun.com/gpu-mem",
    "volcano.sh/gpu-num": "volcano.sh/gpu-mem.128Mi",
}
"""Labels with the number of a pod's cards, and a resource of their stack (cGPU, xGPU)."""

Query = Mapping[str, str]
NO_QUERY: Query = MappingProxyType({})


class Attempt(NamedTuple):
    """One call of the API by the tenant.

    Attributes:
        line: Of the threat model.
        what: Is tried.
        method: Of HTTP.
        path: Of the object or collection.
        body: The object or patch.
        said: A part of the refusal.
        kind: The content type.
        query: Parameters.
        code: HTTP status of the refusal.
        by: The user.
    """

    line: str
    what: str
    method: str
    path: str
    body: Any
    said: str
    kind: str = JSON
    query: Query = NO_QUERY
    code: int = 403
    by: str = TENANT


def pod(name: str, annotations: Mapping[str, str] | None = None, *given: Raw, **spec: Any) -> Raw:
    """A pod of the tenant's that ends at once."""
    made = built(annotations, *given, terminationGracePeriodSeconds=0, **spec)
    made["metadata"] |= {"name": name, "namespace": OWN}
    return made


def base(namespace: str, group: str = "") -> str:
    """Of a namespace's objects."""
    root = f"/apis/{group}" if group else "/api/v1"
    return f"{root}/namespaces/{namespace}"


PODS = base(OWN) + "/pods"
QUOTA_GROUP, CLAIM_GROUP, RBAC = (
    "gpu-fraction.dev/v1alpha1",
    "resource.k8s.io/v1",
    "rbac.authorization.k8s.io/v1",
)
LOCK = "only the system writes it"
WEBHOOK = "only gpu-fraction sets it"


def _new(line: str, what: str, made: Raw, said: str, **rest: Any) -> Attempt:
    """A new pod."""
    return Attempt(line, what, "POST", PODS, made, said, **rest)


def _patch(line: str, what: str, path: str, body: Any, said: str, **rest: Any) -> Attempt:
    return Attempt(line, what, "PATCH", path, body, said, **{"kind": MERGE_PATCH, **rest})


def _with(**fields: Any) -> Raw:
    return container(**fields)


def _meta(**annotations: str) -> Raw:
    return {"metadata": {"annotations": annotations}}


def _debugging(line: str, target: str, said: str, **fields: Any) -> list[Attempt]:
    """An ephemeral container, as ``kubectl debug`` adds it."""
    path = f"{PODS}/{target}/ephemeralcontainers"
    body = {"spec": {"ephemeralContainers": [container("debug", **fields)]}}
    return _inner(line, path, body, said, kind=STRATEGIC_PATCH)


def _inner(line: str, path: str, body: Any, said: str, **rest: Any) -> list[Attempt]:
    """A patch that Kubernetes refuses to the one user, and the product to the other."""
    what = f"{path} as {DEBUGGER}"
    code = rest.pop("code", 403)
    return [
        _rbac(line, "PATCH", path, body, **rest),
        _patch(line, what, path, body, said, by=DEBUGGER, code=code, **rest),
    ]


def _later(pod_name: str, key: str, value: str | None, said: str) -> list[Attempt]:
    """An annotation by every form of patch."""
    pointer = f"/metadata/annotations/{key.replace('/', '~1')}"
    merge = {"metadata": {"annotations": {key: value}}}
    form = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod_name}}
    applied = {**form, "metadata": {"name": pod_name, "annotations": {key: value}}}
    path, what = f"{PODS}/{pod_name}", f"{key} of {pod_name}"
    force = {"fieldManager": "mallory", "force": "true"}
    operation = {"op": "add", "path": pointer, "value": value}
    if value is None:
        operation = {"op": "remove", "path": pointer}
    found = [
        _patch("T2", f"{what}: merge", path, merge, said),
        _patch("T2", f"{what}: strategic", path, merge, said, kind=STRATEGIC_PATCH),
        _patch("T2", f"{what}: JSON patch", path, [operation], said, kind=JSON_PATCH),
        _patch("T2", f"{what}: dry run", path, merge, said, query={"dryRun": "All"}),
    ]
    if value is not None:
        apply = _patch("T2", f"{what}: apply", path, applied, said, kind=APPLY_PATCH, query=force)
        found.append(apply)
    return found


def _binding(key: str) -> Raw:
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "gpu", "annotations": {key: "{}"}},
        "target": {"kind": "Node", "name": NODE},
    }


def _claim(kind: str, device_class: str, *, listed: bool = False, **asked: Any) -> Raw:
    one = {"deviceClassName": device_class, **asked}
    request = {"firstAvailable": [{"name": "a", **one}]} if listed else {"exactly": one}
    spec: Raw = {"devices": {"requests": [{"name": "r", **request}]}}
    if kind == "ResourceClaimTemplate":
        spec = {"spec": spec}
    head = {"apiVersion": CLAIM_GROUP, "kind": kind, "metadata": {"name": "mine"}}
    return {**head, "spec": spec}


def _rbac(line: str, method: str, path: str, body: Any = None, **rest: Any) -> Attempt:
    """What Kubernetes' own rules keep from a namespace's admin."""
    kind = {"PATCH": MERGE_PATCH}.get(method, JSON)
    said = f'User "{TENANT}" cannot'
    return Attempt(line, f"{method} {path}", method, path, body, said, **{"kind": kind, **rest})


def _role_binding(role: str) -> Raw:
    return {
        "apiVersion": RBAC,
        "kind": "RoleBinding",
        "metadata": {"name": "more"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": TENANT}],
    }


_NONROOT = {"runAsUser": 1000, "allowPrivilegeEscalation": False}
_CARD = {"request": "r", "driver": dra.DRIVER, "pool": NODE, "device": "gpu-0"}
_GIVEN = {
    "status": {
        "allocation": {"devices": {"results": [_CARD]}},
        "reservedFor": [{"resource": "pods", "name": "plain", "uid": "u"}],
    }
}
_RESIZED = {"limits": {keys.CORE_MILLI: "1000"}, "requests": {keys.CORE_MILLI: "1000"}}
_ASK = {keys.SLOT: "1", keys.CORE_MILLI: "250", keys.MEMORY_MIB: "20480"}
_USED = {"status": {"used": {"gpus": "0"}, "reserved": []}}
_SPEC = {"spec": {"hard": {"gpus": 1000}}}
_CARDS = {keys.INVENTORY: '{"v":1,"cards":[]}'}
_VISIBLE = env(("NVIDIA_VISIBLE_DEVICES", "all"))
_HIDDEN = env(("NVIDIA_VISIBLE_DEVICES", None))
_QUOTAS = base(OWN, QUOTA_GROUP) + "/gpuquotas"
_THEIR_QUOTA = base(OTHER, QUOTA_GROUP) + "/gpuquotas/budget"
_CLAIMS = base(OWN, CLAIM_GROUP)
_HAND = "put the annotation gpu-fraction on the pod instead"
_CARD_ENV = "NVIDIA_VISIBLE_DEVICES may not be set"
_CLUSTER = {
    "admissionregistration.k8s.io/v1": (
        "mutatingwebhookconfigurations/gpu-fraction",
        "validatingwebhookconfigurations/gpu-fraction",
        "validatingadmissionpolicies/gpu-fraction",
        "validatingadmissionpolicybindings/gpu-fraction",
    ),
    "apiextensions.k8s.io/v1": ("customresourcedefinitions/gpuquotas.gpu-fraction.dev",),
    CLAIM_GROUP: (f"deviceclasses/{dra.FRACTION_CLASS}",),
    RBAC: ("clusterroles/gpu-fraction-controller", "clusterroles/gpu-fraction-view"),
    "scheduling.k8s.io/v1": ("priorityclasses/system-node-critical",),
}

ATTEMPTS: list[Attempt] = [
    _new("T1", "assigned, at creation", pod("a", {**QUARTER, keys.ASSIGNED: "{}"}), WEBHOOK),
    _new("T1", "assigned alone", pod("a", {keys.ASSIGNED: "{}"}), WEBHOOK),
    _new("T1", "request alone", pod("a", {keys.REQUEST: "{}"}), WEBHOOK),
    _new("T1", "another request", pod("a", {**QUARTER, keys.REQUEST: "{}"}), "request"),
    _new("T1", "released, at creation", pod("a", {keys.PREFIX + "released": "now"}), "released"),
    _new("T1", "on a dry run", pod("a", {keys.ASSIGNED: "{}"}), WEBHOOK, query={"dryRun": "All"}),
    Attempt(
        *("T1", "assigned, by server-side apply", "PATCH", f"{PODS}/applied"),
        pod("applied", {keys.ASSIGNED: "{}"}),
        *(WEBHOOK, APPLY_PATCH, {"fieldManager": TENANT, "force": "true"}),
    ),
    *_later("gpu", keys.ASSIGNED, "{}", LOCK),
    *_later("plain", keys.ASSIGNED, "{}", LOCK),
    *_later("gpu", keys.REQUEST, None, LOCK),
    *_later("gpu", keys.FRACTION, "0.001", "cannot change after the pod is created"),
    *_later("gpu", RELEASED, "now", LOCK),
    *_inner("T2", f"{PODS}/gpu/status", _meta(**{keys.ASSIGNED: "{}"}), LOCK),
    *_inner("T2", f"{PODS}/gpu/status", _meta(**{keys.FRACTION: "0.001"}), "cannot change"),
    _rbac("T2", "PATCH", f"{PODS}/gpu/status", {"status": {"phase": "Succeeded"}}),
    *(
        attempt
        for path in (f"{PODS}/gpu/binding", f"{base(OWN)}/bindings")
        for attempt in (
            _rbac("T3", "POST", path, _binding(keys.ASSIGNED)),
            Attempt("T3", path, "POST", path, _binding(keys.ASSIGNED), LOCK, by=DEBUGGER),
            Attempt(
                "T3", path, "POST", path, _binding(keys.FRACTION), "cannot change", by=DEBUGGER
            ),
        )
    ),
    _rbac("T5", "POST", f"{base('kube-system')}/pods", pod("a", QUARTER)),
    _rbac("T5", "POST", f"{base(SYSTEM)}/pods", pod("a", QUARTER)),
    _rbac("T5", "POST", "/api/v1/namespaces", {"metadata": {"name": "gpu-operator"}}),
    _patch("T6", "no gate", f"{PODS}/gated", {"spec": {"schedulingGates": None}}, GATE),
    *(
        _rbac("T7", "PATCH", f"/api/v1/nodes/{NODE}{road}", body)
        for road in ("", "/status")
        for body in (_meta(**_CARDS), {"metadata": {"labels": {keys.LABEL_COUNT: "64"}}})
    ),
    _rbac("T7", "POST", "/api/v1/nodes", {"metadata": {"name": "mine", "annotations": _CARDS}}),
    *(
        _new("T8", f"cards by a variable {what}", pod("a", given, *containers, **spec), _CARD_ENV)
        for what, given, containers, spec in (
            ("of no GPU pod", None, [_with(env=_VISIBLE)], {}),
            ("from a ConfigMap", None, [_with(env=_HIDDEN)], {}),
            ("of a GPU pod", QUARTER, [_with(env=_VISIBLE)], {}),
            ("beside a share", QUARTER, [_with(), container("b", env=_VISIBLE)], {}),
            (
                "of an init container",
                None,
                [],
                {"initContainers": [_with(name="i", env=_VISIBLE)]},
            ),
        )
    ),
    *_debugging("T8", "plain", _CARD_ENV, env=_VISIBLE),
    *_debugging("T8", "gpu", _CARD_ENV, env=_VISIBLE),
    _new(
        *("T10", "another backend", pod("a", {**QUARTER, keys.BACKEND: "hami"})),
        "gpu-fraction.dev/backend",
    ),
    *(
        _new("T11", f"kai-scheduler with {what}", made, said)
        for what, made, said in (
            (
                "cards",
                pod("a", None, _with(env=_VISIBLE), schedulerName="kai-scheduler"),
                _CARD_ENV,
            ),
            (
                "a node",
                pod("a", QUARTER, nodeName=NODE, schedulerName="kai-scheduler"),
                "spec.nodeName",
            ),
            (
                "assigned",
                pod("a", {**QUARTER, keys.ASSIGNED: "{}"}, schedulerName="kai-scheduler"),
                WEBHOOK,
            ),
        )
    ),
    *(
        _new("T12", name, pod("a", QUARTER, _with(env=env((name, "0")))), "may not be set")
        for name in (
            "CUDA_VISIBLE_DEVICES",
            "CUDA_MPS_PIPE_DIRECTORY",
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
        )
    ),
    *_debugging("T12", "gpu", "may not be set", env=env(("CUDA_VISIBLE_DEVICES", "0"))),
    _new(
        *("T13", "privileged", pod("a", QUARTER, _with(securityContext={"privileged": True}))),
        "true is refused in a pod that uses GPUs",
    ),
    *_debugging("T13", "gpu", "true is refused", securityContext={"privileged": True}),
    *(
        _new(
            *("T13", f"the node's {path}"),
            pod("a", QUARTER, volumes=[{"name": "v", "hostPath": {"path": path}}]),
            "hostPath.path",
        )
        for path in ("/dev", "/", "/dev/nvidia0", "//dev/")
    ),
    *_debugging("T14", "required", "runAsUser: 0 is root", securityContext={"runAsUser": 0}),
    *_debugging("T14", "required", "runAsNonRoot: is not true"),
    *_debugging(
        *("T14", "required", "allowPrivilegeEscalation: is not false"),
        securityContext={"runAsUser": 1000},
    ),
    _new("T15", "a node", pod("a", QUARTER, nodeName=NODE), "it bypasses the GPU scheduler"),
    _new(
        *("T15", "a node, by bare resources"),
        pod("a", None, _with(resources=_ASK), nodeName=NODE),
        "it bypasses the GPU scheduler",
    ),
    _new(
        *("T15", "another scheduler", pod("a", QUARTER, schedulerName="mine")),
        "cannot place shares of GPUs",
    ),
    _patch(
        *("T15", "a node, later", f"{PODS}/gpu", {"spec": {"nodeName": NODE}}),
        "pod updates may not change fields",
        code=422,
    ),
    *(
        Attempt(
            *("T16", f"{plural} of {device_class}, listed: {listed}", "POST"),
            f"{_CLAIMS}/{plural}",
            *(_claim(kind, device_class, listed=listed), _HAND),
        )
        for plural, kind in (
            ("resourceclaims", "ResourceClaim"),
            ("resourceclaimtemplates", "ResourceClaimTemplate"),
        )
        for device_class in (dra.FRACTION_CLASS, dra.WHOLE_CLASS)
        for listed in (False, True)
    ),
    Attempt(
        *("T16", "all devices as an administrator", "POST", f"{_CLAIMS}/resourceclaims"),
        _claim("ResourceClaim", "other.example.com", adminAccess=True, allocationMode="All"),
        "admin access to devices requires",
        code=422,
    ),
    _new(
        *("T16", "the resource of a class"),
        pod(
            "a",
            None,
            _with(resources={"deviceclass.resource.kubernetes.io/" + dra.FRACTION_CLASS: "1"}),
        ),
        "put the annotation gpu-fraction on the pod instead",
    ),
    _patch(
        *("T16", "another owner", f"{_CLAIMS}/resourceclaims/{CLAIM}"),
        {"metadata": {"ownerReferences": [{**OWNER, "uid": "another"}]}},
        "claim-owners",
    ),
    _patch(
        *("T16", "no charge", f"{_CLAIMS}/resourceclaims/{CLAIM}"),
        {"metadata": {"labels": {dra.CHARGED: None}}},
        "claim-owners",
    ),
    *_inner(
        *("T16", f"{_CLAIMS}/resourceclaims/{CLAIM}/status"),
        _GIVEN,
        "cluster scope",  # of Kubernetes' own lock, before ours in deploy/claims
        code=422,
    ),
    _rbac("T16", "POST", f"/apis/{CLAIM_GROUP}/resourceslices", {}),
    _new(
        *("T17", "many annotations", pod("a", {f"gpu-{i}": "x" for i in range(2000)})),
        "allowed: at most 64",
    ),
    *(
        _new("T17", f"a huge {key}", pod("a", {**QUARTER, key: value}), key)
        for key, value in (
            (keys.FRACTION, "9" * 200_000),
            (keys.MEMORY, "9" * 200_000 + "Gi"),
            (keys.MODEL, "A," * 100_000),
            (keys.UUID, "GPU-" + "x" * 200_000),
            (keys.NUM_DEVICES, "9" * 4000),
            (keys.REQUEST, "[" * 200_000),
        )
    ),
    _rbac("T19", "GET", f"{base(SYSTEM)}/pods/gpu-fraction-webhook-0/log"),
    _rbac("T19", "GET", f"{base(OTHER)}/pods"),
    _rbac("T19", "GET", _THEIR_QUOTA),
    *(
        _patch(
            *("T20", f"{key} {value}", f"{PODS}/{key.partition('.')[0]}"),
            *({"metadata": {"labels": {key: value}}}, "the quota charges the pod by it"),
        )
        for key in COUNT_LABELS
        for value in (None, "1")
    ),
    *_inner(
        *("T20", f"{PODS}/aliyun/status", {"metadata": {"labels": {"aliyun.com/gpu-count": "1"}}}),
        "the quota charges the pod by it",
    ),
    *(
        _rbac("T21", *attempt)
        for attempt in (
            ("PATCH", f"{_QUOTAS}/budget", _SPEC),
            ("PATCH", f"{_QUOTAS}/budget/status", _USED),
            ("PUT", f"{_QUOTAS}/budget/status", _USED),
            ("DELETE", f"{_QUOTAS}/budget"),
            ("DELETE", _QUOTAS),
            ("POST", _QUOTAS, {"metadata": {"name": "mine"}, **_SPEC}),
            ("PATCH", _THEIR_QUOTA, {"spec": {"hard": {"gpus": 0}}}),
            ("PATCH", f"{_THEIR_QUOTA}/status", _USED),
            ("POST", f"{base(OTHER)}/pods", pod("a", QUARTER)),
        )
    ),
    _rbac(
        *("T21", "PATCH", f"{_QUOTAS}/budget", _SPEC),
        kind=APPLY_PATCH,
        query={"fieldManager": TENANT, "force": "true"},
    ),
    _new(
        *("T22", "more than the budget", pod("a", {keys.FRACTION: "64"})),
        "allowed: at most",
    ),
    _new(
        "T22", "all that is left, and one", pod("a", {keys.FRACTION: "16"}), "exceeded GPU quota"
    ),
    _new(
        *("T22", "by bare resources", pod("a", None, _with(resources={"nvidia.com/gpu": "16"}))),
        "exceeded GPU quota",
    ),
    _new(
        *("T22", "on a dry run", pod("a", {keys.FRACTION: "16"}), "exceeded GPU quota"),
        query={"dryRun": "All"},
    ),
    Attempt(
        *("T22", "by server-side apply", "PATCH", f"{PODS}/applied"),
        pod("applied", {keys.FRACTION: "16"}),
        *("exceeded GPU quota", APPLY_PATCH, {"fieldManager": TENANT, "force": "true"}),
    ),
    *_inner(
        *("T22", f"{PODS}/gpu/resize"),
        {"spec": {"containers": [{"name": "main", "resources": _RESIZED}]}},
        "only cpu and memory resources are mutable",
        kind=STRATEGIC_PATCH,
        code=422,
    ),
    *(
        _rbac("T23", *attempt)
        for attempt in (
            ("GET", f"{base(SYSTEM)}/secrets"),
            ("GET", f"{base(SYSTEM)}/secrets/gpu-fraction-webhook-ca"),
            ("DELETE", f"{base(SYSTEM)}/secrets/gpu-fraction-webhook-ca"),
            (
                "PATCH",
                f"{base(SYSTEM, 'coordination.k8s.io/v1')}/leases/gpu-fraction-controller",
                {"spec": {"holderIdentity": TENANT}},
            ),
            ("POST", f"{base(SYSTEM)}/serviceaccounts/gpu-fraction-controller/token", {}),
            ("POST", f"{base(SYSTEM)}/pods/gpu-fraction-webhook-0/exec?command=id"),
            ("POST", f"{base(SYSTEM, RBAC)}/rolebindings", _role_binding("admin")),
            ("POST", f"/apis/{RBAC}/clusterrolebindings", {"metadata": {"name": "more"}}),
        )
    ),
    *(
        Attempt(
            *("T23", f"the rights of {role}", "POST", f"{base(OWN, RBAC)}/rolebindings"),
            *(_role_binding(role), "attempting to grant RBAC permissions not currently held"),
        )
        for role in ("gpu-fraction-webhook", "gpu-fraction-controller", "cluster-admin")
    ),
    *(
        _rbac("T24", method, f"/apis/{group}/{path}", body)
        for group, paths in _CLUSTER.items()
        for path in paths
        for method, body in (("PATCH", {"metadata": {"labels": {"a": "b"}}}), ("DELETE", None))
    ),
    *(
        _rbac("T24", "PATCH", f"/api/v1/namespaces/{name}", {"metadata": {"labels": labels}})
        for name in (OWN, OTHER)
        for labels in (
            {keys.LABEL_BACKEND: "hami"},
            {"kubernetes.io/metadata.name": "kube-system"},
            {"resource.kubernetes.io/admin-access": "true"},
        )
    ),
    _rbac("T24", "DELETE", f"/api/v1/namespaces/{OWN}"),
    *(
        _rbac("T25", "POST", f"{base(SYSTEM)}/{proxied}", {})
        for proxied in (
            "services/https:gpu-fraction-webhook:443/proxy/validate",
            "services/https:gpu-fraction-webhook:443/proxy/mutate",
            "pods/https:gpu-fraction-webhook-0:9443/proxy/validate",
        )
    ),
    _rbac(
        *("T25", "POST", f"{base(OWN, 'discovery.k8s.io/v1')}/endpointslices"),
        {"metadata": {"name": "mine"}, "addressType": "IPv4", "endpoints": []},
    ),
    _rbac("T25", "POST", f"{base(OWN)}/endpoints", {"metadata": {"name": "mine"}}),
    *(
        _rbac("T26", method, f"{base(OTHER)}/pods{road}", body)
        for method, road, body in (
            ("DELETE", f"/{THEIRS}", None),
            ("DELETE", "", None),
            ("POST", f"/{THEIRS}/eviction", {"metadata": {"name": THEIRS}}),
            ("PATCH", f"/{THEIRS}", {"metadata": {"labels": {"a": "b"}}}),
        )
    ),
    _rbac("T26", "PATCH", f"/api/v1/nodes/{NODE}", {"spec": {"unschedulable": False}}),
]

TRIED_APART = ("T4", "N1", "N6")
"""Lines with a test of their own in test_hostile_tenant.py."""

NOT_TRIED: Mapping[str, str] = {
    "T9": "needs webhook and backend hami; the rows are those of docs/backends/hami.yaml",
    "T18": "nothing is refused: what comes of it is in logs and metrics",
    "N2": "stated as open: the rules on such pods are Kubernetes' Pod Security Standards",
    "N3": "stated as open: what an administrator decides, a tenant cannot try",
    "N4": "stated as open: needs a card with an MPS server",
    "N5": "stated as open: needs a node with NVIDIA's runtime",
}
"""Lines of the threat model that no row is about, and why."""
