"""Show images to a trained VGG-16 and let it answer in spikes.

Sengupta et al. 2019, Going Deeper in Spiking Neural Networks: VGG and Residual Architectures. A VGG-16 trained
without bias and batch norm becomes a network of integrate-and-fire neurons in Brian2; the class is the output
neuron with the most spikes (in conversions for few steps, with the largest potential).
"""

from functools import partial

from netspec.errors import run_command
from sims import run

main = partial(run.main, __doc__, "vgg16-cifar10")

if __name__ == "__main__":
    run_command(main)
