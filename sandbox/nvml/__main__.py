"""Fake GPUs from the command line.

``python -m gpu_fraction.sandbox.nvml DIR create --cards 4`` prints the environment that a program
needs to see them; the other commands change them while it runs.
"""

import argparse
import pathlib
import sys
import uuid

from gpu_fraction.sandbox.nvml import build
from gpu_fraction.sandbox.nvml.hardware import VARIABLE, FakeCard, FakeHardware, FakeInstance

NAMESPACE = uuid.UUID("9d1ad4bd-8e83-4b4b-9f0e-4f6c0a3f1c51")


def _name(kind: str, *parts: object) -> str:
    """The same machine gets the same UUIDs again."""
    return f"{kind}-{uuid.uuid5(NAMESPACE, '/'.join(map(str, parts)))}"


def _create(hardware: FakeHardware, arguments: argparse.Namespace) -> None:
    hardware.machine.driver = arguments.driver
    hardware.cards[:] = [
        FakeCard(
            uuid=_name("GPU", arguments.seed, index),
            name=arguments.model,
            pci=f"00000000:{0x1B + index:02X}:00.0",
            minor=index,
            memory_mib=arguments.memory_mib,
            mig=index < arguments.mig_cards,
            instances=[
                FakeInstance(uuid=_name("MIG", arguments.seed, index, gi), gi=gi)
                for gi in range(7)
            ]
            if index < arguments.mig_cards
            else [],
        )
        for index in range(arguments.cards)
    ]
    hardware.apply()
    library = build.build(hardware.directory / "lib")
    sys.stdout.write(f"{VARIABLE}={hardware.directory}\n")
    sys.stdout.write(f"LD_LIBRARY_PATH={library.parent}\n")
    for card in hardware.cards:
        sys.stdout.write(f"# {card.uuid} {card.name} {card.memory_mib} MiB\n")


def _change(hardware: FakeHardware, arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "xid":
            hardware.event(arguments.card, arguments.number)
        case "lose" | "restore":
            hardware.card(arguments.card).lost = arguments.command == "lose"
            hardware.apply()
        case "recovery":
            hardware.card(arguments.card).recovery_action = arguments.number
            hardware.apply()
        case "fail":
            hardware.fault(arguments.function, arguments.code, arguments.card)
        case "hang":
            hardware.fault(arguments.function, None, arguments.card)
        case _:
            hardware.heal()


def main(argv: list[str] | None = None) -> int:
    """Run one command; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m gpu_fraction.sandbox.nvml", description=__doc__
    )
    parser.add_argument("directory", type=pathlib.Path)
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="build the library and make the cards")
    create.add_argument("--cards", type=int, default=4)
    create.add_argument("--mig-cards", type=int, default=0, help="the first so many in MIG mode")
    create.add_argument("--model", default="NVIDIA H100 80GB HBM3")
    create.add_argument("--memory-mib", type=int, default=81559)
    create.add_argument("--driver", default="615.71.09")
    create.add_argument("--seed", default="node", help="other seeds give other UUIDs")
    for name in ("xid", "recovery"):
        command = commands.add_parser(name)
        command.add_argument("card")
        command.add_argument("number", type=int)
    for name in ("lose", "restore"):
        commands.add_parser(name).add_argument("card")
    for name in ("fail", "hang"):
        command = commands.add_parser(name)
        command.add_argument("function", help="an NVML function, or *")
        command.add_argument("--card", default="*")
        if name == "fail":
            command.add_argument("code", type=int, help="NVML's return code")
    commands.add_parser("heal", help="take back all faults")
    arguments = parser.parse_args(argv)
    hardware = FakeHardware(arguments.directory.resolve())
    (_create if arguments.command == "create" else _change)(hardware, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
