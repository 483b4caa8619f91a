"""Why a pod waits, was refused or does not run: ``gpu-fraction explain``.

::

    facts = await reading.pod(client, "team-a", "train", webhook=...)   # I/O
    report = report_of(facts)                                           # pure: steps and causes
    report.exit_code                                                    # 0 running, 1 not

``causes`` names every cause with its next action and its heading in docs/operations.md; the rules
in ``refusals``, ``placing`` and ``starting`` find them in the facts; ``report`` orders them by the
steps of a pod (docs/architecture.md). ``what_if`` answers what other annotations would change.
"""
