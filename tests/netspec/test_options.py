"""Options that commands share: their defaults, their ranges, their help."""

import os
import shlex
import subprocess
import sys

import pytest

from netspec.errors import UserError
from netspec.options import OPTIONS, add_options, command_line, make_parser


def parse(*arguments: str, **defaults: object) -> dict[str, object]:
    parser = make_parser("A command.")
    add_options(parser, **defaults)
    return vars(parser.parse_args(arguments))


def test_options_have_the_defaults_of_their_command_and_take_several_values_where_that_is_a_list():
    assert parse(steps=7, out=None) == {"steps": 7, "out": None}
    assert parse("--steps", "8", "--quiet", steps=7, quiet=False) == {"steps": 8, "quiet": True}
    assert parse("--thresholds", "a", "b", thresholds=["spike-norm"]) == {"thresholds": ["a", "b"]}
    for option in ("--reset", "--resets"):
        assert parse(option, "zero", "subtract", resets=["zero"]) == {"resets": ["zero", "subtract"]}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("seeds", "-1", "at least 1, got -1"),
        ("workers", "0", "at least 1, got 0"),
        *(("percentile", value, f"above 0 and at most 100, got {value}") for value in ("0.0", "100.1", "nan")),
    ],
)
def test_numbers_out_of_range_are_refused(option, value, words):
    with pytest.raises(UserError, match=f"^--{option} must be {words}$"):
        parse(f"--{option}", value, **{option: 1})


def test_help_shows_defaults_or_what_happens_without_an_option(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    parser = make_parser("First\nline.\n\nname  what it is\n  and what not\n")
    add_options(parser, steps=[10, 20], images=None, seed=0, quiet=False)
    text = parser.format_help()
    assert "\nFirst line.\n\nname  what it is\n  and what not\n" in text
    for line in ("each image (default: 10 20)", "without this option: all", "random numbers (default: 0)", "bars"):
        assert f"{line}\n" in text
    assert not any(words in text for words in ("None", "False"))
    assert all(settings["help"] for settings in OPTIONS.values())


def test_a_command_line_is_quoted_and_parsed_again():
    options = {"checkpoint": "my net.safetensors", "steps": 10, "seed": -1, "images": None, "quiet": True}
    line = command_line("sims/run.py", options | {"data": "it's", "no_photos": False})
    quoted = "python sims/run.py --checkpoint 'my net.safetensors' --steps 10 --seed -1 --quiet --data "
    assert line == quoted + """'it'"'"'s'"""
    defaults = {"checkpoint": "a", "steps": 1, "seed": 0, "images": None, "quiet": False, "data": None}
    assert parse(*shlex.split(line)[2:], **defaults) == options | {"data": "it's"}
    several = {"raster": [], "resets": ["zero", "subtract"]}
    assert command_line("a.py", several) == "python a.py --raster --resets zero subtract"


def test_cores_are_those_that_this_process_may_use():
    code = "from netspec.options import CORES; print(CORES)"
    core = str(min(os.sched_getaffinity(0)))
    ended = subprocess.run(["taskset", "-c", core, sys.executable, "-c", code], capture_output=True, check=True)
    assert ended.stdout == b"1\n"


@pytest.mark.parametrize(("options", "name"), [({"data": "x"}, "data"), ({"thresholds": ["x"]}, "thresholds")])
def test_empty_values_are_refused(options, name, capsys):
    with pytest.raises(SystemExit):
        parse(f"--{name}", "", **options)
    assert f"error: --{name} is empty" in capsys.readouterr().err
