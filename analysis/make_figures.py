"""Draw the figures of the paper and the tables of results, README's too, from the tables in analysis/results.

A figure whose tables do not exist yet is left out, with a line that says by which command they are made.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from analysis import figures
from analysis.coding import sample_photograph
from analysis.results import RESULTS, AmbiguousTableError, MissingTableError, load
from analysis.summaries import comparison, headline, markdown, operations_summary
from netspec.checkpoint import load_checkpoint
from netspec.errors import UserError, run_command
from netspec.files import writable_folder, write_atomically
from netspec.options import make_parser
from sims.report.style import save

ROOT = Path(__file__).resolve().parents[1]
CODING_NETWORK = "vgg16-cifar10"  # whose mean and gain figure 1 uses
CONVERGENCE = "-threshold-convergence.csv"
PAGE = """# Results

Written by `python analysis/make_figures.py` from `{tables}`.

## Errors (tables 1 to 3)

Errors at the end of the presentations, on the given number of test images; with several seeds the mean and the
standard deviation over them. The paper's are means of five runs over all test images, with the full number of channels.
{note}
{errors}
## Operations (section 7.4)

For one image, in layers that IF neurons drive, at 4.6 pJ for a MAC of the ANN and 0.9 pJ for an AC of the SNN. *All
events* counts each spike once for every neuron that it reaches; *by layers* is the paper's dot product of mean spike
counts and the ANN's operations. The events of the input come on top.

{operations}"""
BEGIN, END = "<!-- by analysis/make_figures.py -->\n", "<!-- end -->\n"  # of the table in README
IMAGENETTE = """
Imagenette is ten classes of ImageNet: errors on it cannot be compared with the paper's on all thousand.
"""


def all_figures(tables: Path = RESULTS) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Names of all figures, and functions that draw them or raise MissingTableError."""

    yield (
        "figure1_input_coding",
        lambda: figures.input_spikes(sample_photograph(), load_checkpoint(CODING_NETWORK)),
    )
    yield "figure2c_balancing_factors", figures.balancing_factors
    yield "figure3_constraints", lambda: figures.constraints(load("errors", tables))
    yield "figure4_convergence", lambda: figures.convergence_by_network(load("errors", tables))
    yield "points_lost", lambda: figures.points_lost(load("errors", tables))
    yield "figure5_spike_counts", lambda: figures.spike_counts(load("operations", tables))
    yield f"thresholds_{CODING_NETWORK}", lambda: figures.thresholds(CODING_NETWORK)
    measured = [path.name.removesuffix(CONVERGENCE) for path in sorted(tables.glob(f"*{CONVERGENCE}"))]
    for name in dict.fromkeys([CODING_NETWORK, *measured]):
        yield f"threshold_convergence_{name}", partial(figures.threshold_convergence, name, tables)
    for path in sorted(tables.glob("*-errors.csv")):
        name = path.name.removesuffix("-errors.csv")
        yield f"settings_{name}", partial(figures.convergence_by_setting, load("errors", tables), name)


def results_page(tables: Path = RESULTS) -> str:
    """The table of results in Markdown, beside the paper's numbers.

    Raises
    ------
    MissingTableError
        If nothing was evaluated yet.
    """
    errors, operations = load("errors", tables), load("operations", tables)
    note = IMAGENETTE if any("imagenette" in name for name in errors) else ""
    where = "analysis/results/" if tables.resolve() == RESULTS.resolve() else tables
    return PAGE.format(
        tables=where,
        note=note,
        errors=markdown(comparison(errors)),
        operations=markdown(operations_summary(operations)),
    )


def with_headline(readme: str, tables: Path = RESULTS) -> str:
    """README with the table of results between its two markers as the tables have it; UserError without these."""
    before, begun, rest = readme.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise UserError(f"README.md lacks {(END if begun else BEGIN).strip()}, between which its table is written")
    table = markdown(headline(load("errors", tables), load("operations", tables)))
    return f"{before}{BEGIN}{table}{END}{after}"


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--tables", type=Path, default=RESULTS, metavar="DIR", help="where the tables are")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where figures go; default: figures, for other tables "
                        "than those of analysis/results the folder figures beside them")  # fmt: skip
    options = parser.parse_args()
    if not options.tables.is_dir():
        raise UserError(f"there is no folder {options.tables}")
    published = options.tables.resolve() == RESULTS.resolve()
    out = writable_folder(options.out or (ROOT / "figures" if published else options.tables / "figures"))
    written: list[Path] = []
    for name, draw in all_figures(options.tables):
        try:
            written += save(draw(), out / name)
        except (MissingTableError, AmbiguousTableError) as error:
            print(f"left out {name}: {error}")
    try:
        page = results_page(options.tables)
    except MissingTableError as missing:
        print(f"left out results.md: {missing}")
    else:
        written.append(out / "results.md")
        write_atomically(written[-1], page)
        if published and not options.out:
            written.append(ROOT / "README.md")
            write_atomically(written[-1], with_headline(written[-1].read_text()))
    print("written: " + " ".join(os.path.relpath(path) for path in written))


if __name__ == "__main__":
    run_command(main)
