"""Why a pod waits, was refused or does not run: ``gpu-fraction explain``.

::

    facts = await reading.read(client, PODS, "team-a", "train")   # I/O
    report = report_of(facts)                                     # pure: steps and causes
    report.exit_code                                              # 0 running, 1 not

``causes`` names every cause with its next action and its heading in docs/operations.md. The rules
in ``refusals``, ``waiting``, ``placing`` and ``starting`` find them in the facts, and ``report``
orders them by the steps of a pod. ``what_if`` answers what other annotations would change.
"""
