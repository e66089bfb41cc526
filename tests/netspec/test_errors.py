"""What the person at the keyboard sees when a command fails."""

import os
import subprocess
import sys

import pytest

from netspec.errors import UserError
from netspec.files import writable_folder

MEMORY = "out of memory; use fewer images at a time, a narrower network or shared synapses"
COMMAND = """
import errno
from netspec.errors import UserError, run_command

def main():
    {body}

run_command(main)
"""


def command(tmp_path, body: str, **options) -> subprocess.CompletedProcess[str]:
    """Run a command of that body as a process of its own."""
    script = tmp_path / "command.py"
    script.write_text(COMMAND.format(body=body))
    options |= {"stderr": subprocess.PIPE, "text": True, "env": os.environ | {"PYTHONUNBUFFERED": ""}}
    return subprocess.run([sys.executable, script], check=False, **options)


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        ("raise UserError('7 images were asked for')", 2, "7 images were asked for"),
        ("raise KeyboardInterrupt", 130, "interrupted; what was finished is kept"),
        (
            "import os; os.kill(os.getpid(), 15); __import__('time').sleep(9)",
            143,
            "interrupted; what was finished is kept",
        ),
        ("raise MemoryError", 2, MEMORY),
        ("import torch; torch.empty(1 << 60)", 2, MEMORY),
        ("raise OSError(errno.ENOSPC, '', 'out/log.csv')", 2, "no space left on device (out/log.csv)"),
        ("raise OSError(errno.ENOSPC, '')", 2, "no space left on device"),
        ("raise PermissionError(errno.EACCES, '', 'data')", 2, "permission denied (data)"),
        ("raise OSError(errno.EROFS, '', 'out')", 2, "read-only file system (out)"),
    ],
)
def test_failure_ends_with_its_status_and_one_line(tmp_path, body, status, line):
    ended = command(tmp_path, body)
    assert ended.stderr == f"command.py: error: {line}\n"
    assert ended.returncode == status


@pytest.mark.parametrize("body", ["raise OSError(errno.EIO, 'broken disk')", "raise RuntimeError('a mistake of ours')"])
def test_our_own_mistakes_keep_their_traceback(tmp_path, body):
    ended = command(tmp_path, body)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_success_is_silent_on_stderr(tmp_path):
    ended = command(tmp_path, "print('done')", stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error_of_ours(tmp_path, closed):
    body = "from tqdm import tqdm; print('done'); list(tqdm([1])); open('written', 'w')"
    (tmp_path / "command.py").write_text(COMMAND.format(body=body))
    ended = subprocess.run(f"{sys.executable} command.py {closed}", shell=True, cwd=tmp_path, check=False)
    assert (ended.returncode, (tmp_path / "written").exists()) == (0, True)


@pytest.mark.parametrize("body", ["print('one line')", "[print('line', i) for i in range(100_000)]"])
def test_reader_that_has_gone_is_no_error_of_ours(tmp_path, body):
    reader, writer = os.pipe()
    os.close(reader)
    ended = command(tmp_path, body, stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_folder_is_made_with_its_parents_and_left_empty(tmp_path):
    folder = writable_folder(tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b"
    assert list(folder.iterdir()) == []
    (folder / "kept").touch()
    writable_folder(folder)
    assert [file.name for file in folder.iterdir()] == ["kept"]


@pytest.mark.parametrize(("name", "reason"), [("file", "File exists"), ("file/below", "Not a directory")])
def test_file_in_the_place_of_a_folder_is_told(tmp_path, name, reason):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        writable_folder(tmp_path / name)
    assert str(caught.value) == f"cannot write into the folder {tmp_path / name}: {reason}"
