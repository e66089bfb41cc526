"""Errors of the person at the keyboard, told in one line."""

import errno
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["UserError", "check_range", "one_line", "run_command"]


class UserError(Exception):
    """Something the user can put right; the message says what was found, what was expected, what to do."""


def check_range(
    what: str, value: float, least: float = -math.inf, most: float = math.inf, above: float = -math.inf
) -> None:
    """Raise UserError unless ``least <= value <= most`` and ``value > above``; NaN is in no range."""
    if least <= value <= most and value > above:
        return
    bounds = {"at least": least, "above": above, "at most": most}
    told = {
        word: bound if isinstance(bound, int) else f"{bound:g}"
        for word, bound in bounds.items()
        if math.isfinite(bound)
    }
    words = " and ".join(f"{word} {bound}" for word, bound in told.items())
    raise UserError(f"{what} must be {words}, got {value}")


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def run_command(main: Callable[[], None]) -> None:
    """Run the ``main`` of a command; end on a user's mistake with one line on stderr and exit status 2."""
    path = Path(sys.argv[0])
    name = path.parent.name if path.name == "__main__.py" else path.name
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # closed by whoever started us
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _end)
    try:
        main()
        sys.stdout.flush()  # here, where its errors are still told in one line
    except UserError as error:
        sys.exit(_say(name, str(error)))
    except (MemoryError, RuntimeError) as error:
        torchs = any(words in str(error) for words in ("can't allocate memory", "out of memory"))  # on CPU, on GPU
        if not (torchs or isinstance(error, MemoryError)):
            raise
        sys.exit(_say(name, "out of memory; use fewer images at a time, a narrower network or shared synapses"))
    except KeyboardInterrupt as interrupt:
        _say(name, "interrupted; what was finished is kept")
        sys.exit(interrupt.args[0] if interrupt.args else 130)
    except BrokenPipeError:  # the reader of our output has gone: not our error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(_say(name, f"{os.strerror(error.errno).lower()}{where}"))


def _end(number: int, *_: object) -> None:
    """What schedulers send before they kill ends a command as Ctrl-C does."""
    raise KeyboardInterrupt(128 + number)


def _say(name: str, message: str) -> int:
    print(f"{name}: error: {message}", file=sys.stderr)
    return 2
