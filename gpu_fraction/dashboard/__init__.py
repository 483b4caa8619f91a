"""The reading of a cluster that every view shares: ``status``, ``explain``, ``doctor``, the page.

::

    found = await snapshot.read(client, namespaces=["team-a"])   # I/O: what the caller may read
    cluster = view(found)                                        # pure: cards, slices, quotas
    pod = cluster.pod("team-a", "train")                         # asks, slices, scheduler's word
    placed = choose(cluster.node("n1").states, pod.asks)         # domain.placement: what would fit
    seen = await events.about(client, "Pod", "train", namespace="team-a")

Rights: ``snapshot`` lists each kind for the whole cluster, else in ``namespaces``. A part that is
forbidden, missing or late is a ``Gap`` in that part; ``Cluster.gaps`` has them all, and
``Cluster.pods_known`` says whether free amounts are certain. KubeError is raised only where
nothing can be read at all.

Every function after ``read`` takes values and returns values: no I/O, no clock, and nothing that
an annotation or a status holds makes it raise.
"""
