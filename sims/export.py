"""Hand a converted network to other simulators and neuromorphic chips, as a graph of NIR.

NIR (Pedersen et al. 2024, Neuromorphic intermediate representation) is read by norse, sinabs, snnTorch, SpikingJelly,
Lava, Rockpool, SpiNNaker2 and others. What it cannot say of the network is told, a line each.

    python sims/export.py vgg16-cifar10 --conversion spike-norm --out vgg16.nir
"""

from netspec.checkpoint import load_checkpoint
from netspec.conversion import open_conversion
from netspec.errors import run_command
from netspec.files import writable_file
from netspec.options import add_options, make_parser, number
from sims.exporting.nir import POOLS, to_nir, write_nir

FORMATS = ("nir",)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("checkpoint", metavar="FILE|NAME", help="trained network: a file, or the name of a shipped one")
    add_options(parser, conversion="spike-norm", reset=None)
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the file")
    parser.add_argument(
        "--pool", choices=POOLS, default=POOLS[0],
        help="nodes of average pooling: SumPool2d (sinabs and norse read it), or AvgPool2d (SpikingJelly, snnTorch)",
    )  # fmt: skip
    parser.add_argument(
        "--dt", type=number("--dt", float, above=0), default=1.0,
        help="what a step lasts: r is 1/dt, and time constants are in its unit; SpikingJelly and snnTorch take 1e-4",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="without this option the network's name with .nir")
    options = parser.parse_args()
    network = load_checkpoint(options.checkpoint)
    out = writable_file(options.out or f"{network.spec.name}.nir", ".nir")
    conversion = open_conversion(options.conversion, options.checkpoint, network).told(options.reset)
    exported = to_nir(network, conversion, options.pool, options.dt)
    write_nir(exported, out)
    for note in exported.notes:
        print(note)
    print(f"written: {out} ({len(exported.graph.nodes)} nodes, {len(exported.graph.edges)} edges)")


if __name__ == "__main__":
    run_command(main)
