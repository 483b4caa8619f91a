"""The settings of the cluster's webhook, from its Deployment."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gpu_fraction.dashboard.objects import COMPONENT, PRODUCT, ObjectMeta
from gpu_fraction.domain import keys
from gpu_fraction.kube.client import Client
from gpu_fraction.kube.errors import KubeError
from gpu_fraction.kube.requests import Selection
from gpu_fraction.kube.resources import DEPLOYMENTS
from gpu_fraction.settings.declaration import build, options_of
from gpu_fraction.settings.option import SettingsError, add_flags, load
from gpu_fraction.settings.rewrite import RewriteSettings


class _Variable(msgspec.Struct, frozen=True):
    name: str = ""
    value: str | None = None


class _Container(msgspec.Struct, frozen=True):
    args: list[str] | None = None
    env: list[_Variable] | None = None


class _PodSpec(msgspec.Struct, frozen=True):
    containers: list[_Container] = []


class _Template(msgspec.Struct, frozen=True):
    spec: _PodSpec = _PodSpec()


class _Spec(msgspec.Struct, frozen=True):
    template: _Template = _Template()


class _Deployment(msgspec.Struct, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: _Spec = _Spec()


async def settings(client: Client, *, timeout_s: float) -> tuple[RewriteSettings, str]:
    """What the webhook was started with, and where that stands; the defaults and "" if unread.

    Args:
        client: The connection.
        timeout_s: Seconds for the answer.
    """
    label, product = PRODUCT
    selection = Selection(labels=f"{label}={product},{COMPONENT}=webhook")
    try:
        found = await client.list(DEPLOYMENTS.at(), _Deployment, selection, timeout_s=timeout_s)
    except KubeError:
        return RewriteSettings(), ""
    # Tenants write labels as well: beside the usual namespace only a single one is believed.
    usual = [one for one in found.items if one.metadata.namespace == keys.SYSTEM_NAMESPACE]
    if not usual and len({one.metadata.namespace for one in found.items}) > 1:
        return RewriteSettings(), ""
    for one in usual or found.items:
        for container in one.spec.template.spec.containers:
            if "webhook" in (container.args or ())[:1]:
                read = parse(container.args or (), _values(container.env or ()))
                if read is not None:
                    return read, f"Deployment {one.metadata.namespace}/{one.metadata.name}"
    return RewriteSettings(), ""


def _values(env: Sequence[_Variable]) -> Mapping[str, str]:
    return {one.name: one.value for one in env if one.value is not None}


def parse(args: Sequence[str], environ: Mapping[str, str]) -> RewriteSettings | None:
    """The settings in a command line and its environment; None where they cannot be read.

    Other flags of the webhook are passed over; a settings file is on its node and is not read.
    """
    parser = _Quiet(add_help=False, allow_abbrev=False)
    options = options_of(RewriteSettings)
    add_flags(parser, options, "")
    try:
        flags, _ = parser.parse_known_args([*args])
        return build(RewriteSettings, load(options, flags=vars(flags), environ=environ, file={}))
    except (SettingsError, _UsageError):
        return None


class _UsageError(Exception):
    pass


class _Quiet(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise _UsageError(message)
