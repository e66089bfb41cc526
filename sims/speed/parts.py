"""The parts of the benchmark: whole networks, their layers, growth, and networks of the paper's largest size."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from netspec.architectures.resnet import resnet34
from netspec.architectures.vgg import vgg16
from netspec.errors import UserError, check_range
from netspec.options import CORES
from netspec.spec import NetSpec
from sims.brian.standalone import StandaloneSimulator
from sims.simulation.run_input import MOST_STEPS, RunInput
from sims.speed.activity import CALIBRATED, activity_table, random_image, random_weights, targets, thresholds_for
from sims.speed.answers import answers_table
from sims.speed.calibrating import calibration_table
from sims.speed.comparison import crossings, growth_fit, ratios
from sims.speed.dense import DenseSimulator
from sims.speed.evaluating import evaluation_table
from sims.speed.measure import layer_seconds, measure, measure_dense, per_step

PARTS = ("networks", "layers", "growth", "imagenet", "answers", "evaluation", "calibration")
FEWEST_STEPS = 50  # of large images in the part on growth
DENSE_STEPS = 5  # of dense torch at 224x224
RESNET_ACTIVITY = "0.02"
EVALUATION_STEPS = (16, 64, 256)
RATES = f"spikes per neuron and step, or '{CALIBRATED}'"


def thread_counts() -> list[int]:
    """One thread, and one a core."""
    return sorted({1, CORES})


def setting(default: Any, help: str, **about: Any) -> Any:
    """A field of a plan, and what the command says of its option."""
    return field(default=default, metadata={"help": help, **about})


@dataclass(frozen=True)
class Plan:
    """What is measured. Fields with a help text are options of the command; UserError if one is impossible."""

    parts: tuple[str, ...] = setting(PARTS, "what is measured", choices=PARTS)
    activity: tuple[str, ...] = setting((CALIBRATED, "0.01", "0.05", "0.1", "0.3"), f"of networks and layers: {RATES}")
    width: float = setting(1.0, "factor on the channels, of networks and layers")
    explicit_width: float = setting(0.5, "of the network with stock synapses")
    steps: int = setting(300, "of networks and layers")
    explicit_steps: int = setting(100, "of the network with stock synapses")
    growth_sizes: tuple[int, ...] = setting((32, 64, 128, 224), "at full width")
    growth_widths: tuple[float, ...] = setting((0.25, 0.5, 1.0), "at size 32")
    growth_steps: int = setting(1000, f"at size 32; fewer, as the image has more pixels, but at least {FEWEST_STEPS}")
    growth_activity: tuple[str, ...] = setting(("0.01", "0.03"), f"of growth: {RATES}")
    imagenet_width: float = setting(1.0, "of both networks")
    imagenet_steps: tuple[int, int] = setting((500, 2000), "of each network", metavar=("VGG", "RESNET"))
    answer_batches: tuple[int, ...] = setting((1, 16, 64), "images side by side in dense torch, of answers")
    evaluation_images: tuple[int, ...] = setting(
        (max(200, 2 * CORES), 2000, 10000), f"of evaluations, for {min(EVALUATION_STEPS)} steps"
    )
    calibration: tuple[int, int] = setting((64, 1000), "of SPIKE-NORM", metavar=("IMAGES", "STEPS"))
    repetitions: int = setting(3, "of all but imagenet and the growth of evaluations, which run once")
    seed: int = 0
    before: str | None = None  # another checkout of this project, to be measured beside this one

    def __post_init__(self) -> None:
        for activity in (*self.activity, *self.growth_activity):
            if activity != CALIBRATED and not 0 < pd.to_numeric(activity, errors="coerce") < 0.5:
                raise UserError(f"an activity is '{CALIBRATED}' or a number between 0 and 0.5, got {activity}")
        widths = (self.width, self.explicit_width, self.imagenet_width, *self.growth_widths)
        if not all(0 < width < np.inf for width in widths):
            raise UserError(f"widths must be positive, got {', '.join(f'{width:g}' for width in widths)}")
        every = (self.steps, self.explicit_steps, self.growth_steps, *self.imagenet_steps, self.calibration[1])
        if not all(1 <= steps <= MOST_STEPS for steps in every):
            raise UserError(f"steps must be from 1 to {MOST_STEPS}, got {', '.join(map(str, every))}")
        if any(size < 32 or size % 32 for size in self.growth_sizes):
            raise UserError(f"sizes must be multiples of 32, got {', '.join(map(str, self.growth_sizes))}")
        check_range("the number of repetitions", self.repetitions, least=1)
        check_range("the number of images of a calibration", self.calibration[0], least=1)
        if self.before and not (Path(self.before) / "sims/run_vgg.py").is_file():
            raise UserError(f"{self.before} is no checkout of this project: it has no sims/run_vgg.py")
        if self.before and "answers" not in self.parts:
            raise UserError("another checkout is compared in the part answers, which is not among the parts")
        if "evaluation" in self.parts and min(self.evaluation_images) < 2 * thread_counts()[-1]:
            raise UserError(f"evaluations have two images a core or more, got {min(self.evaluation_images)}")
        if "layers" in self.parts and len(set(self.activity)) < 2:
            raise UserError("the part on layers needs two or more activities")
        if "growth" in self.parts and len(self.growth_activity) * len(self.growth_shapes) < 4:
            raise UserError("the part on growth needs four or more cases; give more sizes, widths or activities")

    @property
    def growth_shapes(self) -> list[tuple[int, float]]:
        """Size and width of the networks in the part on growth, one of which is varied at a time."""
        shapes = [(32, width) for width in self.growth_widths]
        return list(dict.fromkeys(shapes + [(size, max(self.growth_widths)) for size in self.growth_sizes]))


QUICK = Plan(
    parts=PARTS[:4],
    activity=(CALIBRATED, "0.1"),
    width=0.25,
    explicit_width=0.125,
    explicit_steps=300,  # fewer would leave layers silent at the calibrated activity
    growth_sizes=(32, 64),
    growth_widths=(0.125, 0.25),
    growth_steps=50,
    imagenet_width=0.125,
    imagenet_steps=(200, 20),
    repetitions=1,
)


class Bench:
    """Networks with random weights, each compiled once, and what their runs are told, found once.

    ``table`` has the operations of a balanced VGG-16, for calibrated activities. Raises UserError if it has not, or
    if a network is too large for explicit synapses.
    """

    def __init__(self, plan: Plan, table: str | Path) -> None:
        self.plan, self.table = plan, activity_table(table)
        if "networks" in plan.parts:
            from sims.brian.synapses import check_memory  # here, since Brian2 takes seconds to import

            check_memory(vgg16(width=plan.explicit_width))
        self._simulators: dict[tuple, StandaloneSimulator] = {}
        self._run_inputs: dict[tuple, RunInput] = {}

    def simulator(
        self, spec: NetSpec, synapses: str = "shared", profile: bool = False, threads: int = 1
    ) -> StandaloneSimulator:
        key = (spec.name, synapses, profile, threads)
        if key not in self._simulators:
            weights = random_weights(spec, self.plan.seed)
            how: dict[str, Any] = {"profile": profile, "batch": 1, "threads": threads}
            self._simulators[key] = StandaloneSimulator(spec, weights, synapses, quiet=True, **how)
        return self._simulators[key]

    def dense(self, spec: NetSpec) -> Iterator[DenseSimulator]:
        """Dense torch, with each number of threads."""
        weights = random_weights(spec, self.plan.seed)
        for threads in thread_counts():
            yield DenseSimulator(spec, weights, threads)

    def run_input(self, spec: NetSpec, activity: str, steps: int, start: Mapping[str, float] | None = None) -> RunInput:
        """Image and thresholds for an activity; the search begins with the thresholds ``start``."""
        key = (spec.name, activity, steps)
        if key not in self._run_inputs:
            rates, seed = targets(spec, activity, self.table), self.plan.seed
            x = random_image(spec, rates[spec.input.name], seed)
            few = min(steps, max(30, int(8 / min(rates.values()))))  # several spikes of each neuron tell its rate
            thresholds = thresholds_for(self.simulator(spec), x, rates, few, seed, start)
            self._run_inputs[key] = RunInput(x, thresholds, steps, seed)
        return self._run_inputs[key]

    def shared_row(self, spec: NetSpec, activity: str, run_input: RunInput, repetitions: int, threads: int = 1) -> dict:
        """A row of shared synapses; bytes per synapse are those of the file of packed weights."""
        simulator = self.simulator(spec, threads=threads)
        synapses = sum(spec.synapses(projection) for projection in spec.projections)
        name = "shared" if threads == 1 else f"shared-{threads}"
        return {
            **{"network": spec.name, "simulator": name, "activity": activity},
            **{"neurons": spec.neurons(), "synapses": synapses, "weights": spec.parameters()},
            **measure(simulator, run_input, repetitions),
            "bytes_per_synapse": simulator.weights.stat().st_size / synapses,
        }


def networks(bench: Bench) -> dict[str, pd.DataFrame]:
    """Whole networks in each simulator."""
    plan, repetitions, rows = bench.plan, bench.plan.repetitions, []
    narrow, wide = vgg16(width=plan.explicit_width), vgg16(width=plan.width)
    cases = [(narrow, plan.explicit_steps, True)]
    if wide != narrow:
        cases.append((wide, plan.steps, False))
    with tqdm(total=len(cases) * len(plan.activity), desc="networks") as bar:
        for spec, steps, explicit in cases:
            dense = list(bench.dense(spec))
            for activity in plan.activity:
                run_input = bench.run_input(spec, activity, steps)
                shared = bench.shared_row(spec, activity, run_input, repetitions)
                rows.append(shared)
                common = {key: shared[key] for key in ("network", "activity", "neurons", "synapses", "weights")}
                if explicit:
                    row = measure(bench.simulator(spec, "explicit"), run_input, repetitions)
                    # the same neurons in both: what peak memory differs by is synapses
                    extra = (row["peak_memory_mb"] - shared["peak_memory_mb"]) * 1e6 / shared["synapses"]
                    row["bytes_per_synapse"] = extra + shared["bytes_per_synapse"]
                    rows.append(common | {"simulator": "explicit"} | row)
                for simulator in dense:
                    row, _ = measure_dense(simulator, run_input, repetitions)
                    rows.append(common | {"simulator": f"torch-{simulator.threads}"} | row)
                bar.update()
    table = pd.DataFrame(rows)
    return {"networks": table, "networks-ratios": ratios(table)}


def layers(bench: Bench) -> dict[str, pd.DataFrame]:
    """Each layer of the running network: its projections, threshold, reset and count, at each activity."""
    plan, spec, rows = bench.plan, vgg16(width=bench.plan.width), []
    simulator = bench.simulator(spec, profile=True)
    dense: dict[int, dict[str, float]] = {}
    for activity in tqdm(plan.activity, desc="layers"):
        run_input = bench.run_input(spec, activity, plan.steps)
        profiles = []
        for _ in range(plan.repetitions):
            recording = simulator.run(run_input)
            profiles.append(layer_seconds(spec, simulator.profiled, plan.steps))
        if not dense:  # its time does not depend on activity
            dense = {d.threads: measure_dense(d, run_input, plan.repetitions)[1] for d in bench.dense(spec)}
        for population in spec.spiking:
            (projection,) = spec.incoming(population.name)
            seconds = [profile[population.name] for profile in profiles]
            rows.append(
                {
                    **{"network": spec.name, "layer": population.name, "activity": activity},
                    **{"neurons": population.size, "synapses": spec.synapses(projection)},
                    "input_spikes_per_neuron_step": recording.spike_counts(projection.pre).mean() / plan.steps,
                    "sops_per_step": recording.synaptic_operations(projection).sum() / plan.steps,
                    **{f"shared_{name}": value for name, value in per_step(seconds).items()},
                    **{f"torch_{threads}_seconds_per_step": times[population.name] for threads, times in dense.items()},
                }
            )
    table = pd.DataFrame(rows)
    return {"layers": table, "layers-crossings": crossings(table)}


def growth(bench: Bench) -> dict[str, pd.DataFrame]:
    """Time and memory against the size of the image and the width of the network."""
    plan, rows = bench.plan, []
    start: dict[str, Mapping[str, float]] = {}  # a larger network's thresholds are near those of the one before
    for size, width in tqdm(plan.growth_shapes, desc="growth"):
        spec = vgg16(width=width, size=size)
        steps = min(plan.growth_steps, max(FEWEST_STEPS, plan.growth_steps * 32**2 // size**2))
        for activity in plan.growth_activity:
            run_input = bench.run_input(spec, activity, steps, start.get(activity))
            start[activity] = run_input.thresholds
            rows.append({"size": size} | bench.shared_row(spec, activity, run_input, plan.repetitions))
    table = pd.DataFrame(rows)
    return {"growth": table, "growth-fit": pd.DataFrame([growth_fit(table)])}


def imagenet(bench: Bench) -> dict[str, pd.DataFrame]:
    """The paper's large networks, one image, once, with each number of threads; dense torch for a few steps."""
    plan, rows = bench.plan, []
    specs = vgg16("imagenet", width=plan.imagenet_width), resnet34(width=plan.imagenet_width)
    cases = list(zip(specs, (CALIBRATED, RESNET_ACTIVITY), plan.imagenet_steps, strict=True))
    for spec, activity, steps in tqdm(cases, desc="imagenet"):
        run_input = bench.run_input(spec, activity, steps)
        several = [bench.shared_row(spec, activity, run_input, 1, threads) for threads in thread_counts()]
        shared = several[0]
        rows += [row | {"time_ratio": row["seconds_per_step"] / shared["seconds_per_step"]} for row in several]
        short = replace(run_input, steps=min(steps, DENSE_STEPS))
        for simulator in bench.dense(spec):
            row, _ = measure_dense(simulator, short, 1)
            base = {"network": spec.name, "simulator": f"torch-{simulator.threads}", "activity": activity}
            rows.append(base | row | {"time_ratio": row["seconds_per_step"] / shared["seconds_per_step"]})
    return {"imagenet": pd.DataFrame(rows)}


def answers(bench: Bench) -> dict[str, pd.DataFrame]:
    """What an image takes to be answered as well as by the ANN: the trained VGG-16 in many steps and in few."""
    plan = bench.plan
    return {"answers": answers_table(plan.answer_batches, plan.repetitions, thread_counts(), plan.seed, plan.before)}


def evaluation(bench: Bench) -> dict[str, pd.DataFrame]:
    """Time and memory of evaluations against images, steps and worker processes."""
    plan = bench.plan
    counts = plan.evaluation_images, EVALUATION_STEPS, thread_counts()
    return {"evaluation": evaluation_table(*counts, plan.repetitions, plan.seed)}


def calibration(bench: Bench) -> dict[str, pd.DataFrame]:
    """SPIKE-NORM with the layers before the measured one simulated each time, and with their spikes shown again."""
    plan = bench.plan
    return {"calibration": calibration_table(*plan.calibration, plan.repetitions, plan.seed)}


def tables(bench: Bench) -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables of the plan's parts with their names, each as soon as its part is measured."""
    for part in (networks, layers, growth, imagenet, answers, evaluation, calibration):
        if part.__name__ in bench.plan.parts:
            yield from part(bench).items()
