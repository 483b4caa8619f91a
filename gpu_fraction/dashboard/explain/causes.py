"""Every cause that ``explain`` knows, with its next action and its place in docs/operations.md.

The name of a cause is part of the JSON output, so a change here is a breaking change.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from gpu_fraction.dashboard.explain.facts import Evidence
from gpu_fraction.domain.pages import anchor

PAGE: Final = "docs/operations.md"
"""The page with a section for each cause."""

State = Literal["done", "waiting", "refused", "unknown"]
"""Of a step: over; not yet; it will not happen as the pod is; the cluster does not say."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause.

    Attributes:
        name: For programs, in kebab case.
        step: The step of the pod that it holds up, 1 to 9.
        state: What it makes of the step.
        heading: Its section of docs/operations.md.
        action: What to do next.
    """

    name: str
    step: int
    state: State
    heading: str
    action: str

    @property
    def see(self) -> str:
        """The link to its section."""
        return f"{PAGE}#{anchor(self.heading)}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause that holds for this pod.

    Attributes:
        cause: The cause.
        says: What is the matter, one line.
        evidence: What was seen.
    """

    cause: Cause
    says: str
    evidence: tuple[Evidence, ...] = ()


Findings = Iterable[Finding]

_ALL: Final = (
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
    Cause(
        "gated",
        5,
        "waiting",
        "SchedulingGated",
        "whoever set the gate has to remove it",
    ),
    Cause(
        "claim-missing",
        5,
        "waiting",
        "FailedResourceClaimCreation",
        "the gpu-fraction controller makes the templates: look at its pods "
        "(gpu-fraction doctor); a claim by name has to be made by its author",
    ),
    Cause(
        "device-class-missing",
        5,
        "waiting",
        "device class … does not exist",
        "kubectl apply -f deploy/dra/device-classes.yaml",
    ),
    Cause(
        "scheduler-down",
        5,
        "waiting",
        "no scheduler has looked at the pod",
        "look at the scheduler's pods and logs (gpu-fraction doctor)",
    ),
    Cause(
        "extender-down",
        5,
        "waiting",
        "Post https://127.0.0.1:9444/filter",
        "look at the container extender in the scheduler's pods: its logs, its certificates",
    ),
    Cause(
        "daemon-down",
        5,
        "waiting",
        "no GPU inventory",
        "look at the node daemon's pod on that node and its logs (gpu-fraction doctor)",
    ),
    Cause(
        "resource-not-offered",
        5,
        "waiting",
        "Insufficient nvidia.com/gpu",
        "look at the device plugin of that stack; gpu-fraction backends --detect shows "
        "the stacks of the cluster",
    ),
    Cause(
        "uuid-unknown",
        5,
        "waiting",
        "no GPU is one of the UUIDs asked for",
        "name a card that is there (gpu-fraction status -o wide), or remove "
        "gpu-fraction.dev/gpu-uuid",
    ),
    Cause(
        "no-node-with-model",
        5,
        "waiting",
        "no GPU is of a model asked for",
        "change gpu-fraction.dev/gpu-model to a model that is there, or remove it",
    ),
    Cause(
        "card-too-small",
        5,
        "waiting",
        "no GPU is as large as …",
        "ask for less of one card, or for several with gpu-fraction-num-devices",
    ),
    Cause(
        "too-few-cards",
        5,
        "waiting",
        "too few GPUs",
        "ask for fewer GPUs: all of them have to be on one node",
    ),
    Cause(
        "card-sick",
        5,
        "waiting",
        "unhealthy",
        "repair the card or wait until it is well; its node's events have the XID",
    ),
    Cause(
        "node-tainted",
        5,
        "waiting",
        "had untolerated taint",
        "add a toleration to the pod's template, or remove the taint",
    ),
    Cause(
        "node-cordoned",
        5,
        "waiting",
        "were unschedulable",
        "kubectl uncordon the node once its maintenance is over",
    ),
    Cause(
        "node-not-ready",
        5,
        "waiting",
        "node is not ready",
        "look at the node's kubelet: kubectl describe node",
    ),
    Cause(
        "node-selector",
        5,
        "waiting",
        "didn't match Pod's node affinity/selector",
        "change spec.nodeSelector, or label the node",
    ),
    Cause(
        "cards-fragmented",
        5,
        "waiting",
        "free, but on several cards",
        "ask for what one card has free, or move a small pod away",
    ),
    Cause(
        "cards-full",
        5,
        "waiting",
        "… free, … needed",
        "wait for other pods to end, ask for less, or add a node",
    ),
    Cause(
        "not-looked-again",
        5,
        "waiting",
        "cannot allocate all claims",
        "wait up to 5 minutes, or change something of the DeviceClass now: kubectl "
        "annotate deviceclass fraction.gpu-fraction.dev gpu-fraction.dev/nudged=$(date "
        "+%s) --overwrite",
    ),
    Cause(
        "scheduler-refuses",
        5,
        "waiting",
        "nodes are available",
        "do what the scheduler's message says",
    ),
    Cause(
        "kubelet-refused",
        6,
        "refused",
        "UnexpectedAdmissionError",
        "delete the pod: its owner makes a new one",
    ),
    Cause(
        "claim-not-prepared",
        7,
        "waiting",
        "FailedPrepareDynamicResources",
        "the kubelet tries again by itself; if it lasts, look at the node daemon on that node",
    ),
    Cause(
        "slice-refused",
        7,
        "waiting",
        "a container may not start now",
        "do what the daemon's message says; the kubelet tries again by itself",
    ),
    Cause(
        "cdi-off",
        8,
        "unknown",
        "ContainerRuntimeMayIgnoreCDI",
        "set enable_cdi = true in containerd's configuration on that node, restart it, "
        "and start the pod again",
    ),
    Cause(
        "cdi-unresolvable",
        8,
        "waiting",
        "unresolvable CDI devices",
        "look at the node daemon on that node, and at the runtime's cdi_spec_dirs",
    ),
    Cause(
        "image-missing",
        8,
        "waiting",
        "ImagePullBackOff",
        "this is not gpu-fraction: correct the image's name, or its pull secret",
    ),
    Cause(
        "container-fails",
        8,
        "waiting",
        "CrashLoopBackOff",
        "this is not gpu-fraction: read the container's log (kubectl logs --previous)",
    ),
    Cause(
        "sandbox-fails",
        8,
        "waiting",
        "FailedCreatePodSandBox",
        "look at the node's container runtime, and at the pod's runtimeClassName",
    ),
    Cause(
        "ended-badly",
        8,
        "refused",
        "the pod has failed",
        "read the container's log (kubectl logs), then create the pod again",
    ),
)

CAUSES: Final = {cause.name: cause for cause in _ALL}
"""Every cause by its name, in the order of the steps; of one step, the surest first."""

ORDER: Final = {name: at for at, name in enumerate(CAUSES)}


def found(name: str, says: str, *evidence: Evidence) -> Finding:
    """A finding of the named cause."""
    return Finding(CAUSES[name], says, evidence)
