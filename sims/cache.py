"""Tell where the cache of compiled networks and packed weights is and how large it is, or empty it.

It is in the user's cache, or where the variable GOING_DEEPER_CACHE says. Whatever is missing or damaged there is made
again, so that it can be emptied at any time; what other processes are making stays.
"""

from netspec.errors import run_command
from netspec.options import make_parser
from sims.brian.cache import cache_folder, cache_sizes, empty_cache


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--empty", action="store_true", help="remove all but what is being made")
    if parser.parse_args().empty:
        empty_cache()
    print(cache_folder())
    for kind, (entries, size) in cache_sizes().items():
        print(f"{kind:<9}{entries:>5} {size / 1e6:>9.1f} MB")


if __name__ == "__main__":
    run_command(main)
