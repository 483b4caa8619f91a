"""Decides on admission requests; HTTP is in ``endpoints``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from gpu_fraction.domain import admission, changes, keys, units
from gpu_fraction.domain.backends import Backend
from gpu_fraction.domain.pod import Pod
from gpu_fraction.domain.problems import Problem, join
from gpu_fraction.domain.request import Refused, Request
from gpu_fraction.settings.rewrite import RewriteSettings
from gpu_fraction.webhook.answer_cache import AnswerCache, cache_key
from gpu_fraction.webhook.review import (
    AdmissionRequest,
    Answer,
    BadReview,
    decode_binding,
    decode_pod,
    encode_patch,
)

MAX_AUDIT_CHARS: Final = 256
"""Chosen: room for a dozen containers, and bounded whatever a tenant writes."""

BackendLabel = Callable[[str], str | None]
"""A namespace's ``gpu-fraction.dev/backend`` label by its name; None where it has none."""

DefaultFraction = Callable[[str, Pod], str | None]
"""The share that a namespace gives to a pod with GPU annotations but without a share."""


@dataclass(frozen=True, slots=True)
class Decider:
    """Decides on every review.

    Attributes:
        settings: Rules and backends.
        system_users: Users that may write ``assigned``.
        backend_label: A namespace's choice of backend.
        default_fraction: A namespace's share for pods without one.
        cache: Answers on earlier pods.
    """

    settings: RewriteSettings
    system_users: frozenset[str] = frozenset()
    backend_label: BackendLabel | None = None
    default_fraction: DefaultFraction | None = None
    cache: AnswerCache = field(default_factory=AnswerCache)

    def mutate(self, request: AdmissionRequest) -> Answer:
        """The patch for a new pod; every other request is allowed unchanged.

        Raises:
            BadReview: the webhook is not registered for this resource.
        """
        if not is_new_pod(request):
            return Answer(allowed=True)
        pod = decode_pod(request.object, "object")
        try:
            backend = self._backend(request, pod)
        except Refused as e:
            return _refusal(e.problems)
        default = self._default_for(request, pod, backend)
        if default is None:
            return self._new_pod(request, pod, backend, "mutate", _mutated)
        given = msgspec.structs.replace(
            pod.metadata, annotations={**pod.annotations(), keys.FRACTION: default}
        )

        def conclude(verdict: admission.Verdict, backend: Backend) -> Answer:
            add = {"op": "add", "path": f"/metadata/annotations/{keys.FRACTION}", "value": default}
            answer = _mutated(verdict, backend)
            warning = f"{keys.FRACTION} {default} is the default of the namespace's GPUQuota"
            return msgspec.structs.replace(
                answer,
                patch=encode_patch([add, *verdict.operations]),
                warnings=(*answer.warnings, warning),
            )

        given_pod = msgspec.structs.replace(pod, metadata=given)
        # A pod whose author wrote the share gets another patch, so the key differs.
        return self._new_pod(request, given_pod, backend, f"mutate-default-{default}", conclude)

    def _default_for(self, request: AdmissionRequest, pod: Pod, backend: Backend) -> str | None:
        """The share to fill in; None where the pod needs none or the namespace has none."""
        if self.default_fraction is None:
            return None
        annotations = pod.annotations()
        # The choice of a backend is no wish for a GPU.
        silent = (*keys.SYSTEM_KEYS, keys.BACKEND)
        ours = [key for key in annotations if keys.is_ours(key) and key not in silent]
        if not ours or self.settings.rules.leaves(pod, backend):
            return None
        shares = (keys.FRACTION, keys.MEMORY)
        if any(key in shares or key.startswith(keys.CONTAINER_PREFIX) for key in ours):
            return None
        return self.default_fraction(request.namespace or "", pod)

    def validate(self, request: AdmissionRequest) -> Answer:
        """Whether the API server may store the object.

        Raises:
            BadReview: the webhook is not registered for this resource.
        """
        if is_new_pod(request):
            pod = decode_pod(request.object, "object")
            try:
                backend = self._backend(request, pod)
            except Refused as e:
                return _refusal(e.problems)
            return self._new_pod(request, pod, backend, "validate", _validated)
        # A Binding is created as ``pods/binding`` or as the older resource ``bindings``.
        if request.operation == "CREATE" and "binding" in (
            request.sub_resource,
            request.resource.resource.removesuffix("s"),
        ):
            binding = decode_binding(request.object)
            problems = changes.binding(
                binding.metadata.annotations or {}, trusted=self._trusted(request)
            )
        elif request.operation == "UPDATE":
            problems = changes.update(
                decode_pod(request.old_object, "oldObject"),
                decode_pod(request.object, "object"),
                self.settings.rules.policy,
                trusted=self._trusted(request),
            )
        else:
            return Answer(allowed=True)
        return _refusal(problems) if problems else Answer(allowed=True)

    def _new_pod(
        self,
        request: AdmissionRequest,
        pod: Pod,
        backend: Backend,
        path: str,
        conclude: Callable[[admission.Verdict, Backend], Answer],
    ) -> Answer:
        """The answer on a new pod, from the cache where an equal pod came before.

        The answer depends only on the decoded fields and the settings. Pods come in bursts from
        one template, and the fields that differ between them are not decoded.
        """
        trusted = self._trusted(request)
        key = cache_key(path, backend.name, pod, trusted=trusted)
        answer = self.cache.get(key)
        if answer is None:
            try:
                verdict = admission.admit(pod, backend, self.settings.rules, trusted=trusted)
                answer = conclude(verdict, backend)
            except Refused as e:
                answer = _refusal(e.problems, backend)
            self.cache.put(key, answer)
        return answer

    def _trusted(self, request: AdmissionRequest) -> bool:
        return request.user_info.username in self.system_users

    def _backend(self, request: AdmissionRequest, pod: Pod) -> Backend:
        choose = self.backend_label
        label = choose(request.namespace) if choose and request.namespace else None
        return self.settings.backend_of(pod, label)


def _mutated(verdict: admission.Verdict, backend: Backend) -> Answer:
    return Answer(
        allowed=True,
        patch=encode_patch(verdict.operations),
        warnings=verdict.warnings,
        audit=_audit(verdict.request, backend, "patched" if verdict.operations else "kept"),
    )


def _validated(verdict: admission.Verdict, backend: Backend) -> Answer:
    if verdict.operations:
        missing = ", ".join(str(op["path"]) for op in verdict.operations[:3])
        problem = Problem(
            "pod",
            f"does not match its GPU annotations (missing: {missing}): "
            "gpu-fraction's mutating webhook did not run, or another webhook removed its changes",
        )
        return _refusal([problem], backend)
    return Answer(allowed=True, audit=_audit(verdict.request, backend, "allowed"))


def is_new_claim(request: AdmissionRequest) -> bool:
    """True for the creation of a ResourceClaim."""
    resource = request.resource
    return (
        (resource.group, resource.resource) == ("resource.k8s.io", "resourceclaims")
        and request.operation == "CREATE"
        and not request.sub_resource
    )


def is_new_pod(request: AdmissionRequest) -> bool:
    """True for the creation of a pod.

    Raises:
        BadReview: the webhook is not registered for this resource.
    """
    if request.resource.group or request.resource.resource not in {"pods", "bindings"}:
        raise BadReview(
            f"resource {request.resource.resource!r} of group {request.resource.group!r} is not "
            "handled; register this webhook for pods and bindings only"
        )
    return (
        request.operation == "CREATE"
        and not request.sub_resource
        and request.resource.resource == "pods"
    )


def _refusal(problems: Sequence[Problem], backend: Backend | None = None) -> Answer:
    return Answer(allowed=False, message=join(problems), audit=_audit(None, backend, "refused"))


def _audit(request: Request | None, backend: Backend | None, decision: str) -> dict[str, str]:
    """Audit annotations; the API server prefixes the keys with the webhook's name."""
    audit = {"decision": decision}
    if backend is not None and (request is not None or decision == "refused"):
        audit["backend"] = backend.name
    if request is not None:
        shares = (
            f"{s.container}={s.cards}x"
            + (f"{s.memory_mib}Mi" if s.core_milli is None else units.format_milli(s.core_milli))
            for s in request.slices
        )
        audit["fraction"] = ",".join(shares)[:MAX_AUDIT_CHARS]
    return audit
