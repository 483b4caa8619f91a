"""Manifests that the tests of ``gpu-fraction mutate`` share."""

import json
from typing import Any

NOTEBOOK = """\
# A notebook.
apiVersion: v1
kind: Pod
metadata:
  name: notebook
  annotations:
    gpu-fraction: "0.25"   # a quarter
spec:
  containers:
    - name: main   # the only one
      image: 'busybox'
"""

NATIVE = {"gpu-fraction.dev/slot": "1", "gpu-fraction.dev/core-milli": "250"}


def manifest(kind: str, template: str = "", **metadata: str) -> str:
    """A workload of one GPU container, its pod under ``template``."""
    pod: dict[str, Any] = {
        "metadata": {"annotations": {"gpu-fraction": "0.25"}},
        "spec": {"containers": [{"name": "main"}]},
    }
    body: dict[str, Any] = {"apiVersion": "v1", "kind": kind}
    body["metadata"] = {"name": "w", **metadata}
    if not template:
        body["metadata"].update(pod["metadata"])
        return json.dumps({**body, "spec": pod["spec"]})
    for key in reversed(template.split(".")):
        pod = {key: pod}
    return json.dumps({**body, **pod})
