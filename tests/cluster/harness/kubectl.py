"""kubectl, always with a kubeconfig of the tests and never with the user's own."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_TIMEOUT_S = 120.0

Manifest = Mapping[str, Any]
"""A Kubernetes object as JSON holds it."""


class KubectlError(Exception):
    """kubectl ended with a status other than 0; the message is what it printed."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Calls kubectl: ``kubectl("get", "pods", "-o", "name")`` returns what it prints.

    Attributes:
        binary: the program.
        kubeconfig: cluster and user.
        env: its whole environment; ``HOME`` holds its discovery cache.
        namespace: given with every call, if not empty.
    """

    binary: Path
    kubeconfig: Path
    env: Mapping[str, str]
    namespace: str = ""

    def __call__(
        self, *words: str, stdin: Manifest | str | None = None, timeout_s: float = _TIMEOUT_S
    ) -> str:
        """Runs one command.

        Args:
            words: command and arguments.
            stdin: text, or an object that is written as JSON.
            timeout_s: it is killed after so many seconds.

        Raises:
            KubectlError: it failed.
        """
        done = self.run(*words, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def run(
        self, *words: str, stdin: Manifest | str | None = None, timeout_s: float = _TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """As calling it, but a failure is returned, with what was printed where."""
        options = [f"--kubeconfig={self.kubeconfig}"]
        if self.namespace:
            options.append(f"--namespace={self.namespace}")
        text = stdin if isinstance(stdin, str | None) else json.dumps(stdin)
        return subprocess.run(
            [self.binary, *options, *words],
            input=text or "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=dict(self.env),
        )

    def json(self, *words: str, stdin: Manifest | str | None = None) -> dict[str, Any]:
        """The object that a command prints with ``-o json``."""
        return dict(json.loads(self(*words, "-o", "json", stdin=stdin)))

    def apply(self, *manifests: Manifest) -> None:
        """Creates or changes objects, in this order, by client-side apply."""
        self("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": manifests})

    def within(self, namespace: str) -> "Kubectl":
        """The same for another namespace."""
        return replace(self, namespace=namespace)

    def acting_as(self, kubeconfig: Path) -> "Kubectl":
        """The same for another user."""
        return replace(self, kubeconfig=kubeconfig)
