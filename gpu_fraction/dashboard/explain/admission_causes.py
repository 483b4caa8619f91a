"""Causes for which a pod is refused, or not counted: their actions and their sections."""

from typing import Final

from gpu_fraction.dashboard.explain.cause import Cause

ADMISSION: Final = (
    Cause(
        "webhook-down",
        1,
        "refused",
        "failed calling webhook",
        "look at the webhook's pods and their Service (gpu-fraction doctor); the owner "
        "tries again by itself",
    ),
    Cause(
        "namespace-excluded",
        1,
        "refused",
        "the pod was never rewritten",
        "run the pod in another namespace, or ask the administrator to take this one "
        "off the webhook's namespaceSelector; then create the pod again",
    ),
    Cause(
        "left-to-scheduler",
        2,
        "refused",
        "gpu-fraction does not change pods that another scheduler schedules",
        "remove spec.schedulerName from the pod's template to let gpu-fraction place "
        "it, or ask that scheduler's own documentation",
    ),
    Cause(
        "never-rewritten",
        1,
        "refused",
        "the pod was never rewritten",
        "delete the pod and create it again: it was made while the webhook was not registered",
    ),
    Cause(
        "annotation-misspelt",
        2,
        "refused",
        "not a known annotation",
        "correct the annotation in the pod's template and apply it again",
    ),
    Cause(
        "value-out-of-range",
        2,
        "refused",
        "is …; allowed: …",
        "write an allowed value into the pod's template and apply it again",
    ),
    Cause(
        "isolation-not-offered",
        5,
        "waiting",
        "does not enforce memory and compute",
        "set gpu-fraction.dev/isolation to preferred, or ask the administrator for an "
        "isolation engine on the nodes",
    ),
    Cause(
        "isolation-refused",
        2,
        "refused",
        '"required" cannot be honoured',
        "set gpu-fraction.dev/isolation to preferred or none",
    ),
    Cause(
        "larger-than-any-card",
        2,
        "refused",
        "the largest eligible GPU has … MiB",
        "ask for less memory on one GPU, or spread it over several with gpu-fraction-num-devices",
    ),
    Cause(
        "rewrite-undone",
        3,
        "refused",
        "does not match its GPU annotations",
        "find the other webhook (kubectl get mutatingwebhookconfigurations) and keep it "
        "off these pods",
    ),
    Cause(
        "quota-exceeded",
        3,
        "refused",
        "exceeded GPU quota",
        "ask for less, end another pod of the namespace, or ask for a larger GPUQuota; "
        "the owner tries again when budget is freed",
    ),
    Cause(
        "quota-needs-size",
        3,
        "refused",
        "failed GPU quota: must specify memory",
        "ask for gpu-memory in place of a share, or ask the administrator to set "
        "--gpu-memory-mib or --gpu-memory-by-model",
    ),
    Cause(
        "quota-per-pod",
        3,
        "refused",
        "outside GPU quota",
        "ask for an amount within the quota's perPod bounds",
    ),
    Cause(
        "quota-missing",
        3,
        "refused",
        "insufficient GPU quota",
        "ask the administrator for a GPUQuota in the namespace",
    ),
    Cause(
        "quota-unusable",
        3,
        "refused",
        "GPU quota … is invalid",
        "ask the administrator to correct the GPUQuota",
    ),
    Cause(
        "webhook-refused",
        3,
        "refused",
        "validate.gpu-fraction.dev denied the request",
        "change the pod's template as the message says",
    ),
    Cause(
        "resource-quota",
        3,
        "refused",
        "exceeded quota",
        "this is Kubernetes' own ResourceQuota: end other pods, ask for less, or have it raised",
    ),
    Cause(
        "pod-security",
        3,
        "refused",
        "violates PodSecurity",
        "change the pod's security context as the message says, or the namespace's "
        "label pod-security.kubernetes.io/enforce",
    ),
    Cause(
        "other-admission",
        3,
        "refused",
        "another webhook denied the request",
        "this is not gpu-fraction: ask who runs that webhook or policy",
    ),
    Cause(
        "not-wanted",
        1,
        "waiting",
        "it makes no pods now",
        "scale the owner up (kubectl scale), or let it go on: set spec.suspend to false",
    ),
    Cause(
        "not-created",
        3,
        "refused",
        "Error creating",
        "do what the message says; the owner tries again by itself",
    ),
    Cause(
        "not-counted",
        4,
        "waiting",
        "a reservation stays",
        "look at the controller's pods (gpu-fraction doctor); no work is held up by it",
    ),
)
"""Of the steps 1 to 4."""
