"""``gpu-fraction doctor``: checks of an installation, over one reading of the cluster.

::

    evidence = await reading.read(client, namespace="default")   # I/O: what the caller may read
    results = examine(evidence)                                  # pure: one result for each check
    text = report.text(results)

A check is a function of the evidence; ``table.CHECKS`` lists them all. What a check may not read
is named in its result, and no other check suffers.
"""
