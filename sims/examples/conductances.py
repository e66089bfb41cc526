"""Centre and surround by conductances: excitation through a narrow kernel, inhibition through a broad one.

Neurons with synaptic conductances as in Vogels and Abbott 2005, Signal propagation and logic gating in networks of
integrate-and-fire neurons, Journal of Neuroscience 25:10786-10795; receptive fields as differences of Gaussians as in
Rodieck 1965, Quantitative analysis of cat retinal ganglion cell response to visual stimuli, Vision Research 5:583-601.

A disc of light falls on a sheet of Poisson neurons. Each cell is excited from its centre and inhibited from its
surround, so that it answers to the edge of the disc, not to its inside.
"""

import matplotlib.pyplot as plt
import numpy as np
from brian2 import (
    Hz,
    Network,
    NeuronGroup,
    PoissonGroup,
    SpikeMonitor,
    StateMonitor,
    defaultclock,
    ms,
    mV,
    nS,
    pF,
    prefs,
    second,
    seed,
)  # fmt: skip

from netspec.files import writable_folder
from sims.brian.shared_synapses import SharedSynapses

# Parameters
size = 64  # cells along a side
centre, surround = 1.0, 2.5  # widths of the kernels, in cells
extent = 15  # of the kernels
C, g_leak, E_leak = 200 * pF, 10 * nS, -60 * mV
E_exc, E_inh = 0 * mV, -80 * mV
tau_exc, tau_inh = 5 * ms, 10 * ms
V_threshold, V_reset, t_refractory = -50 * mV, -60 * mV, 5 * ms
w_exc, w_inh = 70 * nS, 80 * nS  # all conductance that one spike of each input neuron opens
dark, light = 5 * Hz, 60 * Hz
duration = 0.3 * second
defaultclock.dt = 1 * ms
prefs.codegen.target = "numpy"
seed(1)

y, x = np.mgrid[:size, :size] - (size - 1) / 2
disc = x**2 + y**2 < 18**2
offset = np.arange(extent) - extent // 2


def gaussian(width):
    """A kernel whose weights sum to 1, of one channel to one channel."""
    profile = np.exp(-(offset**2) / (2 * width**2))
    kernel = np.outer(profile, profile)
    return (kernel / kernel.sum())[None, None]


# Network
receptors = PoissonGroup(size * size, np.where(disc, light, dark).ravel() * Hz)
cells = NeuronGroup(
    size * size,
    """
    dv/dt = (g_leak*(E_leak - v) + g_exc*(E_exc - v) + g_inh*(E_inh - v)) / C : volt (unless refractory)
    dg_exc/dt = -g_exc / tau_exc : siemens
    dg_inh/dt = -g_inh / tau_inh : siemens
    """,
    threshold="v > V_threshold", reset="v = V_reset", refractory=t_refractory, method="euler",
)  # fmt: skip
cells.v = E_leak
sheet, border = (size, size, 1), extent // 2
excitation = SharedSynapses(
    receptors, cells, gaussian(centre) * w_exc, on_pre="g_exc_post += w", pre_shape=sheet, padding=border
)
inhibition = SharedSynapses(
    receptors, cells, gaussian(surround) * w_inh, on_pre="g_inh_post += w", pre_shape=sheet, padding=border
)
spikes = SpikeMonitor(cells, record=False)
places = {"inside": 32, "edge": 48, "outside": 58}  # columns of the middle row
seen = StateMonitor(cells, ["v", "g_exc", "g_inh"], record=[32 * size + column for column in places.values()])
Network(receptors, cells, excitation, inhibition, spikes, seen).run(duration)

# Plot
rates = np.asarray(spikes.count).reshape(size, size) / float(duration)
figure, axes = plt.subplot_mosaic(
    [["light", "rates", "inside"], ["light", "rates", "edge"], ["light", "rates", "outside"]],
    figsize=(10, 3.6), width_ratios=[1, 1.15, 1.6], layout="constrained",
)  # fmt: skip
axes["light"].imshow(disc, cmap="gray")
axes["light"].set_title("light")
shown = axes["rates"].imshow(rates, cmap="magma")
axes["rates"].set_title("rate of the cells (Hz)")
figure.colorbar(shown, ax=axes["rates"], shrink=0.6)
for number, (place, column) in enumerate(places.items()):
    axes["rates"].plot(column, 32, "o", mec="white", mfc="none")
    axis = axes[place]
    axis.plot(seen.t / ms, seen.g_exc[number] / nS, color="tab:red", label="excitatory")
    axis.plot(seen.t / ms, seen.g_inh[number] / nS, color="tab:blue", label="inhibitory")
    axis.set(xlim=(0, 200), ylim=(0, 80), ylabel="nS", title=f"{place}: {rates[32, column]:.0f} Hz")
axes["outside"].legend(loc="upper right", fontsize="small", ncols=2)
axes["outside"].set_xlabel("time (ms)")
for name in ("light", "rates"):
    axes[name].axis("off")
file = writable_folder("output/examples") / "conductances.png"
figure.savefig(file, dpi=110)
print(f"edge {rates[32, 48]:.0f} Hz, inside {rates[32, 32]:.0f} Hz; written: {file}")
