"""``gpu-fraction webhook``: the admission server, wired together."""

import argparse
import asyncio
import gc
import signal
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import GC_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from gpu_fraction.cli.config import load_options
from gpu_fraction.serving import logs
from gpu_fraction.serving.server import HttpsServer
from gpu_fraction.settings import rewrite
from gpu_fraction.settings.option import SettingsError, add_flags, print_config
from webhook import settings as webhook_options
from webhook.app import AdmissionApp, Decide
from webhook.decide import Decider
from webhook.review import AdmissionRequest, Answer

DESCRIPTION: Final = """\
Serve the admission webhook over TLS: /mutate, /validate, /livez, /readyz, /metrics.

Every setting may be given as a flag, as a variable GPU_FRACTION_NAME or in the --config file
(YAML); the first of these wins. SIGTERM drains: every request is answered, none is dropped.

example:
  gpu-fraction webhook --tls-cert tls.crt --tls-key tls.key --gpu-memory-mib 80Gi
"""

OPTIONS: Final = (*webhook_options.OPTIONS, *rewrite.OPTIONS)

__all__ = ["add_parser", "run"]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "webhook",
        help="serve the admission webhook",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="settings file, YAML")
    parser.add_argument(
        "--print-config", action="store_true", help="print every setting and its source, and exit"
    )
    add_flags(parser, webhook_options.OPTIONS, "where and how to serve")
    add_flags(parser, rewrite.OPTIONS, "how pods are rewritten")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit code."""
    values = load_options(OPTIONS, args, environ)
    if args.print_config:
        sys.stdout.write(print_config(values))
        return 0
    settings = webhook_options.webhook_settings(values)
    tls = _tls(settings)
    logs.configure(settings.log_level)
    asyncio.run(_serve(settings, rewrite.rewrite_settings(values), tls))
    return 0


def _tls(settings: webhook_options.WebhookSettings) -> ssl.SSLContext:
    """The server's certificate.

    Raises:
        SettingsError: the pair is missing, unreadable or does not belong together.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        raise SettingsError(["--tls-cert and --tls-key are needed"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as e:
        raise SettingsError(
            [f"--tls-cert {settings.tls_cert} with --tls-key {settings.tls_key}: {e}"]
        ) from e
    return context


async def _serve(
    settings: webhook_options.WebhookSettings,
    rewriting: rewrite.RewriteSettings,
    tls: ssl.SSLContext,
) -> None:
    registry = CollectorRegistry()
    registry.register(PROCESS_COLLECTOR)
    registry.register(GC_COLLECTOR)
    decider = Decider(rewriting, settings.system_users)
    stop = asyncio.Event()
    app = AdmissionApp(
        _plain(decider.mutate),
        _plain(decider.validate),
        registry,
        checks=(lambda: "stopping" if stop.is_set() else None,),
    )
    server = HttpsServer(
        app.build(), host=settings.host, port=settings.port, tls=tls, drain=settings.drain
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # What is loaded by now lives as long as the process; the collector need not look at it.
    gc.freeze()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(stop), name="server")


def _plain(decide: Callable[[AdmissionRequest], Answer]) -> Decide:
    """A verdict that needs no waiting, in the form of one that does."""

    async def answer(request: AdmissionRequest, _deadline: float) -> Answer:
        return decide(request)

    return answer
