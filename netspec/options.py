"""Options that commands share: each has one name, one meaning and one help text; a command has its own defaults."""

import argparse
import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from netspec.conversion import CODINGS
from netspec.errors import check_range
from netspec.thresholds import RESETS, VARIANTS

__all__ = ["CORES", "WITHOUT", "Unasked", "add_options", "command_line", "machine_memory", "make_parser", "number"]


def allowed_cores() -> int:
    """Cores that this process may use: by its affinity (taskset, SLURM) and its control group (containers)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # "max 100000": no limit
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, max(1, round(quota / period)))
    return cores


CORES = allowed_cores()


def number(option: str, kind: type = int, **bounds: float) -> Callable[[str], float]:
    """An argument's ``type`` that raises UserError if the number is out of the bounds of :func:`check_range`."""

    def convert(text: str) -> float:
        value = kind(text)
        check_range(option, value, **bounds)
        return value

    convert.__name__ = kind.__name__  # for argparse's "invalid int value"
    return convert


RESET_HELP = "what a spike does to the membrane: sets it to zero, or subtracts the threshold"
OPTIONS: dict[str, dict[str, Any]] = {
    "checkpoint": {
        "metavar": "FILE|NAME",
        "help": "trained network: a file, or the name of a shipped one (docs/training.md lists them)",
    },
    "data": {
        "metavar": "NAME|DIR",
        "help": "cifar10 (downloaded once), a folder of its binary files, one with train/CLASS/* and val/CLASS/*, an "
        ".npz file with images and labels; "
        "not to train on: a folder of images, cifar10-samples, imagenet-samples",
    },
    "images": {
        "type": int,
        "help": "number of images: random ones of training images, the first of test images "
        "(of FOLDER/CLASS/* by their paths: class after class)",
    },
    "seed": {"type": int, "help": "of all random numbers"},
    "seeds": {"type": number("--seeds", least=1), "help": "how many: --seed, --seed + 1, ..."},
    "steps": {"type": int, "help": "time steps for each image"},
    "thresholds": {
        "metavar": "FILE|METHOD",
        "help": f"a file, or one of {', '.join(VARIANTS)}: the file of that name beside the checkpoint",
    },
    "conversion": {
        "metavar": "FILE|NAME",
        "help": f"a file, or the name of one beside the checkpoint: {', '.join(VARIANTS)}, fast, ...",
    },
    "conversions": {"metavar": "FILE|NAME", "help": "files, or names of those beside the checkpoint"},
    "reset": {"choices": RESETS, "help": RESET_HELP},
    "resets": {"choices": RESETS, "help": RESET_HELP},
    "coding": {"choices": CODINGS, "help": "how images are shown: as random spikes, or as a constant current"},
    "model": {
        "nargs": "+",
        "metavar": "NAME|FILE|POPULATION=...",
        "help": "neuron model: if, leaky, refractory, lif, cuba-lif, or a TOML file with equations; of one population, "
        "or of all",
    },
    "percentile": {
        "type": number("--percentile", float, above=0, most=100),
        "help": "of the largest input or activation of each neuron of a layer (spike-norm, ann-norm), or of all its "
        "positive activations; 100 is the maximum",
    },
    "workers": {"type": number("--workers", least=1), "help": "processes side by side"},
    "out": {"metavar": "PATH", "help": "where results go"},
    "quiet": {"action": "store_true", "help": "results alone, without progress bars"},
}
ALIASES = {"resets": ["--reset"], "conversion": ["--thresholds"], "conversions": ["--conversion", "--thresholds"]}
WITHOUT = {  # what happens without an option whose default is None
    "data": "the bundled samples of the network's size",
    "steps": "those that the conversion was made for, or 2500",
    "reset": "the conversion's own",
    "resets": "the conversion's own",
    "coding": "the conversion's own",
    "model": "the conversion's own",
    "images": "all",
    "out": "a file named after the network",
}


def machine_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Unasked(str):
    """A default that can be told from the same word as an argument."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults where there are some, and keeps paragraphs and tables of the description."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default in ((), []) or isinstance(default, bool):
            return action.help
        if isinstance(default, (list, tuple)):
            return f"{action.help} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        parts = text.strip().split("\n\n")
        return "\n\n".join(part if "\n  " in part else fill(part, width, indent) for part in parts)


class Parser(argparse.ArgumentParser):
    """Refuses empty values, as an unset variable of a shell gives them: '' would be this folder as a path."""

    def parse_args(self, *arguments: Any, **more: Any) -> Any:
        options = super().parse_args(*arguments, **more)
        for name, value in vars(options).items():
            if "" in (value if isinstance(value, list) else [value]):
                self.error(f"--{name.replace('_', '-')} is empty")
        return options


def make_parser(description: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help shows defaults, but not where there is none."""
    return Parser(prog, description=description, formatter_class=HelpFormatter)


def add_options(parser: argparse.ArgumentParser, without: Mapping[str, str] = WITHOUT, **defaults: Any) -> None:
    """Add shared options in the order in which they are named.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    without : mapping of str to str
        What happens without an option whose default is None.
    **defaults
        The default of each option in this command, by its name in ``OPTIONS``. With a list the option takes one
        or more values; at None the help says what happens without it.
    """
    for name, default in defaults.items():
        settings = OPTIONS[name] | {"default": default}
        if isinstance(default, list):
            settings["nargs"] = "+"
        if default in (None, []) and name in without:
            settings["help"] += f"; without this option: {without[name]}"
        parser.add_argument(f"--{name}", *ALIASES.get(name, []), **settings)


def command_line(script: str, options: Mapping[str, Any]) -> str:
    """The command with these options, quoted for a shell.

    Parameters
    ----------
    script : str
        Path of the Python file.
    options : mapping
        Values by name, in order; None and False are left out, True is a flag without a value.
    """
    words = ["python", script]
    for name, value in options.items():
        if value is not None and value is not False:
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else map(str, value if isinstance(value, (list, tuple)) else [value])
    return shlex.join(words)
