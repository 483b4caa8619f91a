"""A kubelet's device manager that speaks the real protocols, for fault injection.

It keeps to what kubernetes 1.36 does, its faults included: sockets are removed when it starts,
a plugin whose stream ended is never dialled again, the end of an old stream disconnects the
new plugin too, after a restart ``PreStartContainer`` is skipped until the plugin registers,
and an id can be given to two pods.
"""
