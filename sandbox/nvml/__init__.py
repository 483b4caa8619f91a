"""Fake GPUs: a ``libnvidia-ml.so.1`` of our own, so that the real pynvml runs without one."""
