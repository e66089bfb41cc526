"""The command that redoes the study: its list, what it runs, how it goes on."""

import json
import os
import shlex
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from commands import run

from analysis import reproduce
from netspec.errors import UserError

REPRODUCE = partial(run, "reproduce.py", reproduce.main)
EVERY = [
    (name, command)
    for name, entry in reproduce.study().items()
    for command in reproduce.commands(entry, None, reproduce.placeholders("cifar10", "photos", "out"))
]


@pytest.mark.parametrize(("name", "command"), EVERY, ids=[f"{name} {k}" for k, (name, _) in enumerate(EVERY)])
def test_the_commands_of_the_study_are_understood(name, command, monkeypatch):
    """Each is one of this repository's, with options that it has."""
    words = list(command.words)
    module = words.pop(1) if words[0] == "-m" else Path(words[0]).with_suffix("").as_posix().replace("/", ".")
    monkeypatch.setattr(sys, "argv", [module, *words[1:]])
    made = import_module(module)
    if hasattr(made, "parse_arguments"):
        assert made.parse_arguments()
    assert command.seconds > 0
    assert "out" not in words or words[0] == reproduce.EVALUATE  # the others write one file, or into a folder of theirs
    assert not command.makes or command.makes in words or f"{Path(command.makes).parent}" in words


def test_all_entries_are_listed_with_their_time():
    ended = REPRODUCE("--list")
    assert [line.split()[0] for line in ended.out.splitlines()] == list(reproduce.study())
    assert all(line.split()[2] in ("s", "min", "h") for line in ended.out.splitlines())


def test_a_dry_run_tells_commands_and_runs_nothing(tmp_path):
    ended = REPRODUCE("table1", "--images", 1000, "--dry-run", "--out", tmp_path / "study")
    assert ended.status == 0, ended
    assert f"--images 1000 --data cifar10 --out {tmp_path / 'study'}" in ended.out
    assert "about " in ended.out
    assert not (tmp_path / "study").exists()


SCRIPT = "import pathlib, sys; file = pathlib.Path(sys.argv[1]); print('ran'); file.open('a').write('x'); sys.exit({})"


def test_a_failed_run_goes_on_where_it_stopped(tmp_path, monkeypatch, capfd):
    def entry(status: int) -> dict:
        second = shlex.join(["-c", SCRIPT.format(status), "{out}/second"])
        first = shlex.join(["-c", SCRIPT.format(0), "{out}/first"])
        return {"about": "", "commands": [{"run": first, "seconds": 1}, {"run": second, "seconds": 1}]}

    places = reproduce.placeholders("", "", str(tmp_path))
    wanted = list(reproduce.commands(entry(3), None, places))
    with pytest.raises(UserError, match="ended with status 3"):
        reproduce.run(wanted, tmp_path)
    assert json.loads((tmp_path / reproduce.FINISHED).read_text()) == [str(wanted[0])]
    wanted = list(reproduce.commands(entry(0), None, places))
    for _ in range(2):
        reproduce.run(wanted, tmp_path)
    assert (tmp_path / "first").read_text() == "x"
    assert (tmp_path / "second").read_text() == "xx"
    assert capfd.readouterr().out.count("finished before") == 3


def test_what_may_have_changed_is_not_finished(tmp_path, monkeypatch):
    """Evaluations know by themselves what is finished; the others are run again for other networks."""
    places, tried = reproduce.placeholders("", "", str(tmp_path)), []
    monkeypatch.setattr(reproduce.subprocess, "call", lambda words, env: tried.append(Path(words[1]).name) or 0)
    names = (f"{reproduce.EVALUATE} --out {{out}}", "sims/benchmark.py", "analysis/ingredients.py")
    runs = [{"run": name, "seconds": 1} for name in names]
    wanted = list(reproduce.commands({"about": "", "commands": runs}, None, places))
    for _ in range(2):
        reproduce.run(wanted, tmp_path)
    assert tried == ["evaluate.py", "benchmark.py", "ingredients.py", "evaluate.py"]
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(reproduce, "PRETRAINED", tmp_path / "shipped")
    (tmp_path / "shipped" / "thresholds.json").touch()
    os.utime(tmp_path / "shipped" / "thresholds.json", (2e9, 2e9))
    reproduce.run(wanted, tmp_path)
    assert tried[4:] == ["evaluate.py", "benchmark.py", "ingredients.py"]
    assert reproduce.EVALUATE not in (tmp_path / reproduce.FINISHED).read_text()
    train = {"run": "-m netspec.train vgg16", "seconds": 1}
    make = {"run": "sims/calibrate.py --out {out}/t.json", "makes": "{out}/t.json", "seconds": 1}
    wanted, tried[:] = list(reproduce.commands({"about": "", "commands": (train, make)}, None, places)), []
    (tmp_path / "t.json").touch()
    for _ in range(2):
        reproduce.run(wanted, tmp_path)
    assert tried == ["-m", "calibrate.py", "calibrate.py"]  # what was trained does not come from shipped networks
    os.utime(tmp_path / "t.json", (3e9, 3e9))
    reproduce.run(wanted, tmp_path)
    assert len(tried) == 3


def test_a_deleted_table_is_made_again(tmp_path):
    script = "import pathlib, sys; pathlib.Path(sys.argv[2]).write_text('x')"
    told = {"run": shlex.join(["-c", script, "--out", "{out}/table.csv"]), "seconds": 1}
    places = reproduce.placeholders("", "", str(tmp_path))
    wanted = list(reproduce.commands({"about": "", "commands": [told]}, None, places))
    reproduce.run(wanted, tmp_path)
    (tmp_path / "table.csv").unlink()
    reproduce.run(wanted, tmp_path)
    assert (tmp_path / "table.csv").read_text() == "x"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "which table or figure? --list names them"),
        (["table9"], "there is no table9 in the study; --list names what there is"),
        (["table1", "--images", 0], "--images must be at least 1, got 0"),
        (["imagenette"], "photographs are needed: --imagenette DIR"),
    ],
)
def test_what_cannot_be_redone_is_told(arguments, reason, tmp_path):
    REPRODUCE(*arguments, "--out", tmp_path / "out").assert_refused("reproduce.py", reason)
    assert not (tmp_path / "out").exists()
