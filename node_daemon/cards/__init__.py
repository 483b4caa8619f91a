"""The cards of the node: NVML, the inventory, health."""
