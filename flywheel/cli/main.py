"""The entry point: finds the command, lets tyro read its arguments, and turns errors into one sentence."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

import tyro

from flywheel import __version__
from flywheel.cli.console import console, plain_warnings, print_error
from flywheel.core.errors import FlywheelError
from flywheel.core.registry import unknown

COMMANDS = {
    "demo": "The whole loop on this machine, with a report to look at",
    "collect": "Run a policy or an expert on a task and append its episodes to a store",
    "pretrain": "Pretrain goal-conditioned Actionable Models on a store, without rewards",
    "train": "Train any algorithm on a store",
    "finetune": "Finetune a pretrained policy on one task's rewards",
    "eval": "Measure a policy's success on fixed seeds, with its interval; compare two in pairs",
    "deploy": "Run a policy on a robot behind the safety layer, recording its episodes",
    "import": "Append the episodes of a foreign data set (RLDS, robomimic, LeRobot, Minari, D4RL, ...) to a store",
    "export": "Write the episodes of a store as RLDS, LeRobot, robomimic or Minari for other programs to read",
    "label": "Label episodes as successes or failures by looking at them, in the browser",
    "detector": "Success detectors, which tell success by pictures: train, label",
    "store": "Look into a store and label it: info, ls, show, view, query, label, snapshot, verify, sync and more",
    "lineage": "Where an episode, a policy or a snapshot comes from, and what came of it",
    "robot": "Check that a robot keeps its promises: robot check NAME",
    "bench": "Measure this machine's rates: sampling, updates, appends, environment steps",
}
"""Every command (a module of this folder) and what it is for."""

_MODULES = {"eval": "evaluate", "import": "import_"}
"""Where the file cannot have the command's name."""

_THE_WORLD = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
}
"""What a disk or a path given by the user can be; any other error of the system's is a mistake of ours."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 0, with 1 for an error the user can mend, with 2 for a call it cannot read."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        _print_help()
    elif given[0] == "--version":
        console.print(f"flywheel {__version__}")
    elif given[0] not in COMMANDS:
        print_error(unknown("command", given[0], tuple(COMMANDS)))
        raise SystemExit(2)
    else:
        with plain_warnings():
            _run(given[0], given[1:])


def _run(command: str, arguments: list[str]) -> None:
    try:
        module = importlib.import_module(f"flywheel.cli.{_MODULES.get(command, command)}")
        if hasattr(module, "run"):
            module.run(arguments)
        else:
            _check_subcommand(command, arguments, tuple(module.SUBCOMMANDS))
            tyro.extras.subcommand_cli_from_dict(
                module.SUBCOMMANDS, prog=f"flywheel {command}", args=arguments, description=module.__doc__
            )
    except FlywheelError as error:
        print_error(str(error))
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("flywheel"):
            raise
        print_error(f"This command needs the package '{error.name}'; install it with: pip install 'flywheel-robotics[all]'.")
        raise SystemExit(1) from None
    except BrokenPipeError:  # the reader, for example head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        if error.errno not in _THE_WORLD:
            raise
        where = f": {error.filename}" if error.filename else ""
        print_error(f"{error.strerror}{where}. What was stored before is safe; mend that and run the command again.")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print_error("Interrupted. Run the same command again to go on from here.")
        raise SystemExit(130) from None


def _check_subcommand(command: str, arguments: list[str], known: tuple[str, ...]) -> None:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
        print_error(unknown(f"command {command}", arguments[0], known))
        raise SystemExit(2)


def _print_help() -> None:
    console.print("[bold]flywheel[/bold] keeps every robot episode and makes the next policy from all of them.\n")
    width = max(map(len, COMMANDS))
    for name, summary in COMMANDS.items():
        console.print(f"  [bold]{name:<{width}}[/bold]  {summary}")
    console.print("\nflywheel COMMAND --help tells more. A first look: [bold]flywheel demo[/bold]")
