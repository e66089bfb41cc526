"""Redo tables and figures of the study, by the commands that made them (analysis/study.toml).

What it takes is told before it starts. Results go into one folder; the same command again goes on where it stopped.
Draw them with `python analysis/make_figures.py --tables FOLDER`.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netspec.checkpoint import PRETRAINED
from netspec.errors import UserError, run_command
from netspec.files import writable_folder, write_atomically
from netspec.options import CORES, add_options, make_parser

ROOT = Path(__file__).resolve().parents[1]
STUDY = Path(__file__).with_name("study.toml")
FINISHED = "finished.json"
EVALUATE = "sims/evaluate.py"  # knows by itself what is finished, by images, networks and thresholds
WHOLE = 10_000  # test images of CIFAR-10


@dataclass(frozen=True)
class Command:
    """One command of the study.

    Parameters
    ----------
    words : tuple of str
        Arguments of the Python interpreter.
    seconds : float
        What it takes on this machine's cores, if they are as fast as the authors'.
    makes : str
        The file after whose making it need not run again; or nothing.
    """

    words: tuple[str, ...]
    seconds: float
    makes: str = ""

    def __str__(self) -> str:
        return shlex.join(["python", *self.words])

    @property
    def deleted(self) -> bool:
        """Whether what its ``--out`` names is not there."""
        return "--out" in self.words and not Path(self.words[self.words.index("--out") + 1]).exists()


def study() -> dict[str, dict[str, Any]]:
    """The tables of study.toml."""
    return tomllib.loads(STUDY.read_text())


def commands(entry: Mapping[str, Any], images: int | None, places: Mapping[str, str]) -> Iterator[Command]:
    """The commands of an entry, with the number of images and the places filled in."""
    for told in entry["commands"]:
        shown = min(images or WHOLE, entry.get("images", WHOLE))
        words = [word.format(images=shown, **places) for word in shlex.split(told["run"])]
        seconds = told["each"] * shown / CORES if "each" in told else told["seconds"]
        yield Command(tuple(words), seconds, told.get("makes", "").format(**places))


def duration(seconds: float) -> str:
    """A time as a user would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def listed() -> str:
    """All entries, and what they take on this machine's cores."""
    lines = []
    for name, entry in study().items():
        spent = sum(command.seconds for command in commands(entry, None, placeholders("", "", "")))
        lines.append(f"{name:<24} {duration(spent):>8}  {entry['about']}")
    return "\n".join(lines)


def placeholders(data: str, imagenette: str, out: str) -> dict[str, str]:
    return {"data": data, "imagenette": imagenette, "out": out}


def run(wanted: Sequence[Command], out: Path) -> None:
    """Run what is not finished; raises UserError where a command fails."""
    record = out / FINISHED
    try:
        finished = json.loads(record.read_text()) if record.is_file() else []
    except ValueError as error:
        raise UserError(f"{record} is damaged; without it everything is run again") from error
    shipped = max(file.stat().st_mtime for file in PRETRAINED.iterdir() if not file.name.startswith("."))
    if finished and record.stat().st_mtime < shipped:
        finished = [command for command in finished if command.startswith("python -m")]

    def done(command: Command) -> bool:
        """Whether a command was finished, with the networks and thresholds that are shipped now if it reads them."""
        if command.words[0] == EVALUATE:
            return False
        if command.makes and (made := Path(command.makes)).is_file():
            return command.words[0] == "-m" or made.stat().st_mtime > shipped
        return str(command) in finished and not command.deleted

    for number, command in enumerate(wanted, 1):
        print(f"[{number}/{len(wanted)}] {command}", flush=True)
        if done(command):
            print("finished before", flush=True)
            continue
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        words = [str(ROOT / word) if (ROOT / word).suffix == ".py" else word for word in command.words[:1]]
        status = subprocess.call([sys.executable, *words, *command.words[1:]], env=environment)
        if status:
            raise UserError(f"it ended with status {status}: {command}")
        if command.words[0] != EVALUATE:
            finished.append(str(command))
            write_atomically(record, json.dumps(finished, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("entries", nargs="*", metavar="ENTRY", help="tables or figures; --list names them")
    parser.add_argument("--list", action="store_true", help="tell all entries and what they take on this machine")
    parser.add_argument("--dry-run", action="store_true", help="tell the commands and what they take, run nothing")
    parser.add_argument("--images", type=int, help="fewer images than those of the study, in evaluations")
    add_options(parser, data="cifar10")
    parser.add_argument("--imagenette", metavar="DIR", help="folder with train/CLASS/* and val/CLASS/*")
    add_options(parser, out="output/study")
    return parser.parse_args()


def main() -> None:
    options, entries = parse_arguments(), study()
    if options.list:
        print(listed())
        return
    if not options.entries:
        raise UserError("which table or figure? --list names them")
    if unknown := set(options.entries) - set(entries):
        raise UserError(f"there is no {min(unknown)} in the study; --list names what there is")
    if options.images is not None and options.images < 1:
        raise UserError(f"--images must be at least 1, got {options.images}")
    chosen = [entries[name] for name in dict.fromkeys(options.entries)]
    if not (options.imagenette or options.dry_run) and any(
        "{imagenette}" in told["run"] for entry in chosen for told in entry["commands"]
    ):
        raise UserError("photographs are needed: --imagenette DIR, a folder with train/CLASS/* and val/CLASS/*")
    places = placeholders(options.data, options.imagenette or "DIR", options.out)
    wanted = [command for entry in chosen for command in commands(entry, options.images, places)]
    for command in wanted:
        print(f"{duration(command.seconds):>8}  {command}")
    print(f"about {duration(sum(command.seconds for command in wanted))} on {CORES} cores like the authors'")
    if not options.dry_run:
        run(wanted, writable_folder(options.out))
        print(f"results are in {options.out}; draw them: python analysis/make_figures.py --tables {options.out}")


if __name__ == "__main__":
    run_command(main)
