"""The node daemon: advertises slices to the kubelet and gives each container exactly its own.

Three layers. What the cards are and what is free of them knows no gRPC; ``kubelet`` speaks
the kubelet's protocols and knows no NVML; ``app`` puts the two together.
"""
