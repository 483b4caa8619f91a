"""``gpu-fraction selftest``: slices on a real GPU node, promise against measurement.

``protocol`` has the steps and judges them, ``inside`` measures in a container, ``outside`` starts
the Jobs of the steps and reads their answers, ``report`` prints. No part of it was verified on
real hardware yet (docs/gpu-results.md).
"""
