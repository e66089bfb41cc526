"""Simple cells on a photograph: a layer of orientation filters whose weights all places share.

Hubel and Wiesel 1962, Receptive fields, binocular interaction and functional architecture in the cat's visual cortex.
Journal of Physiology 160:106-154. The filters are Gabor functions, as Jones and Palmer 1987 found them to be.

Each pixel fires at a rate that grows with its brightness; a leaky integrate-and-fire neuron for each place and
orientation sums them through its filter. Stock Synapses would need 13.6 million weights, these are 8 x 13 x 13.
"""

import matplotlib.pyplot as plt
import numpy as np
from brian2 import Hz, Network, NeuronGroup, PoissonGroup, SpikeMonitor, defaultclock, ms, mV, prefs, second, seed

from netspec.data import load_images
from netspec.files import writable_folder
from sims.brian.shared_synapses import SharedSynapses

# Parameters
size = 224  # pixels along a side of the photograph
orientations = np.arange(8) * np.pi / 8
width, wavelength = 3.0, 7.0  # of the filters, in pixels
extent = 13  # pixels along a side of a filter
stride = 2
max_rate = 200 * Hz
strength = 3 * mV  # of a spike through the largest weight
tau, threshold = 20 * ms, 10 * mV
duration = 0.25 * second
defaultclock.dt = 1 * ms
prefs.codegen.target = "numpy"
seed(1)

# A photograph, in grey from 0 to 1
photograph = load_images("imagenet-samples", (size, size, 3), ()).images[2].mean(axis=-1) / 255

# Gabor filters (orientation, channels of pre, height, width); without a mean, so that even light does nothing
y, x = np.mgrid[:extent, :extent] - extent // 2
along = np.cos(orientations)[:, None, None] * x + np.sin(orientations)[:, None, None] * y
filters = np.exp(-(x**2 + y**2) / (2 * width**2)) * np.cos(2 * np.pi * along / wavelength)
filters -= filters.mean(axis=(1, 2), keepdims=True)
filters /= filters.max()

# Network
pixels = PoissonGroup(size * size, photograph.ravel() * max_rate)
side = (size - extent) // stride + 1
cells = NeuronGroup(
    side * side * len(orientations),
    "dv/dt = -v / tau : volt",
    threshold="v > threshold",
    reset="v = 0*mV",
    method="exact",
)
synapses = SharedSynapses(
    pixels, cells, filters[:, None], on_pre="v_post += strength*w", pre_shape=(size, size, 1), stride=stride
)
spikes = SpikeMonitor(cells, record=False)
Network(pixels, cells, synapses, spikes).run(duration)

# Plot: what each place prefers is the angle of the mean over orientations, of period pi
rates = np.asarray(spikes.count).reshape(synapses.post_shape) / float(duration)
mean = (rates * np.exp(2j * orientations)).sum(axis=-1)
preferred, strongest = np.angle(mean) / 2 % np.pi, np.abs(mean) / np.abs(mean).max()
picture = plt.cm.hsv(preferred / np.pi)
picture[..., :3] *= strongest[..., None]

figure = plt.figure(figsize=(9, 4.2), layout="constrained")
grid = figure.add_gridspec(2, 1, height_ratios=[5, 1])
above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
left, middle, right = above.subplots(1, 3)
left.imshow(photograph, cmap="gray", vmin=0, vmax=1)
left.set_title("photograph")
shown = middle.imshow(rates.max(axis=-1), cmap="magma")
middle.set_title("largest rate (Hz)")
figure.colorbar(shown, ax=middle, shrink=0.6)
right.imshow(picture)
right.set_title("preferred orientation (below)")
for axis in (left, middle, right):
    axis.axis("off")
for axis, filter_, orientation in zip(below.subplots(1, len(orientations)), filters, orientations, strict=True):
    axis.imshow(filter_, cmap="gray", vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=plt.cm.hsv(orientation / np.pi), linewidth=4)
file = writable_folder("output/examples") / "orientation_filters.png"
figure.savefig(file, dpi=110)
print(f"{int(spikes.num_spikes)} spikes of {len(cells)} cells; written: {file}")
