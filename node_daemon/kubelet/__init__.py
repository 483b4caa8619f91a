"""The kubelet's protocols: device plugin v1beta1 and PodResources v1. Knows no NVML."""
