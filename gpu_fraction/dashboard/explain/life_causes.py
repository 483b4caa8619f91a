"""Causes for which a pod waits or does not run: their actions and their sections."""

from typing import Final

from gpu_fraction.dashboard.explain.cause import Cause

LIFE: Final = (
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
        "binding-refused",
        5,
        "waiting",
        "binding to … denied",
        "do what the message says; where only gpu-fraction sets an annotation, the webhook's "
        "--system-users lacks the scheduler's account",
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
        "change spec.nodeSelector or spec.affinity, or label the node",
    ),
    Cause(
        "resource-short",
        5,
        "waiting",
        "Insufficient gpu-fraction.dev/memory-mib",
        "where the amount is larger than a card, the webhook expects larger cards than there are: "
        "correct --gpu-memory-mib and --gpu-memory-by-model; else wait for other pods to end",
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
"""Of the steps 5 to 8."""
