"""Graphs of NIR that come in: their spikes by NIR's own equations and by norse, what is read, what is refused."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT
from nir_graphs import (
    DT,
    chain,
    conv,
    exact,
    flat,
    full,
    neurons,
    nir,
    norse_spikes,
    run_events,
    shown,
    simulated,
    spikes,
)
from test_damaged_files import damaged

from netspec.errors import UserError
from netspec.importing.nir import from_nir, nodes_table

STEPS = 20


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def sensor(**nodes) -> dict:
    return {"input": nir.Input({"input": np.array([2, 8, 8])})} | nodes


def branches() -> nir.NIRGraph:
    """Two ways that meet again, one of them through a graph in the graph; a signal that goes three ways."""
    draw = rng()
    inner = nir.NIRGraph(
        {
            "in": nir.Input({"input": np.array([3, 8, 8])}),
            "conv": conv(exact(draw, 3, 3, 3, 3), plane=(8, 8), padding="same"),
            "fire": neurons("IF", 3, 8, 8),
            "out": nir.Output({"output": np.array([3, 8, 8])}),
        },
        [("in", "conv"), ("conv", "fire"), ("fire", "out")],
        type_check=False,
    )
    nodes = sensor(
        stem=conv(exact(draw, 3, 2, 3, 3), exact(draw, 3), (8, 8), padding=(1, 1)),
        fire=neurons("IF", 3, 8, 8),
        block=inner,
        down=conv(exact(draw, 4, 3, 2, 2), plane=(8, 8), stride=(2, 2)),
        skip=conv(exact(draw, 4, 3, 1, 1), plane=(8, 8), stride=2),
        junction=neurons("IF", 4, 4, 4),
        flat=flat(4, 4, 4),
        fc=nir.Linear(exact(draw, 5, 64)),
        readout=neurons("IF", 5),
        output=nir.Output({"output": np.array([5])}),
    )
    edges = [("input", "stem"), ("stem", "fire"), ("fire", "block"), ("fire", "skip"), ("block", "down")]
    edges += [("down", "junction"), ("skip", "junction"), ("junction", "flat"), ("flat", "fc"), ("fc", "readout")]
    return nir.NIRGraph(nodes, [*edges, ("readout", "output")], type_check=False)


def graphs() -> dict[str, tuple]:
    """A graph and what a step lasts, for each."""
    draw = rng()
    leaky = neurons("LIF", 6, threshold=0.25), neurons("LIF", 3, threshold=0.25, v_leak=0.125)
    fc, fc2 = nir.Affine(exact(draw, 6, 8), exact(draw, 6) / 4), nir.Affine(exact(draw, 3, 6), exact(draw, 3) / 4)
    return {
        "dense": (chain((8,), fc, neurons("IF", 6), fc2, neurons("IF", 3, v_reset=0.25), out=(3,)), None),
        "leaky": (chain((8,), fc, leaky[0], fc2, leaky[1], out=(3,)), DT),
        "currents": (chain((8,), fc, neurons("CubaLIF", 6), fc2, neurons("CubaLIF", 3, v_reset=-0.5), out=(3,)), DT),
        "resistance": (chain((8,), fc, neurons("IF", 6, r=1e4), fc2, neurons("IF", 3, r=1e4), out=(3,)), None),
        "gain": (chain((8,), fc, neurons("IF", 6, r=8.0), fc2, neurons("IF", 3, r=2.0), out=(3,)), 0.25),
        "one axis": (
            chain(
                (2, 9),
                nir.Conv1d(9, exact(draw, 3, 2, 3), 2, 1, 1, 1, exact(draw, 3)),
                neurons("IF", 3, 5),
                flat(3, 5),
                nir.Linear(exact(draw, 4, 15)),
                neurons("IF", 4),
                out=(4,),
            ),
            None,
        ),
        "pools": (
            chain(
                (2, 9, 9),
                conv(exact(draw, 4, 1, 2, 3), exact(draw, 4), (9, 9), padding=(1, 0), dilation=(2, 1), groups=2),
                neurons("IF", 4, 9, 7),
                nir.SumPool2d(np.array([3, 3]), np.array([2, 2]), np.array([1, 1])),
                nir.Scale(np.broadcast_to(full(0.25, 4, 1, 1), (4, 5, 4)).copy()),
                conv(exact(draw, 4, 4, 2, 1), plane=(5, 4)),
                neurons("IF", 4, 4, 4),
                nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
                flat(4, 2, 2),
                nir.Linear(exact(draw, 3, 16)),
                neurons("IF", 3),
                out=(3,),
            ),
            None,
        ),
        "branches": (branches(), None),
    }


GRAPHS = graphs()


@pytest.mark.parametrize("name", GRAPHS)
def test_spikes_are_those_of_nirs_equations(name, tmp_path):
    graph, dt = GRAPHS[name]
    nir.write(tmp_path / "graph.nir", graph)
    imported = from_nir(tmp_path / "graph.nir", dt=dt)
    assert imported.checkpoint.spiking and imported.conversion.reset == "zero"
    spec = imported.checkpoint.spec
    events, signal = shown(spec, STEPS)
    signal = signal.reshape(STEPS, *graph.nodes["input"].input_type["input"])
    step = imported.conversion.made["dt"]
    expected = simulated(graph, signal, dt=step)
    found = run_events(imported.checkpoint, imported.conversion, events, STEPS)
    np.testing.assert_array_equal(spikes(found), expected.reshape(STEPS, -1))
    assert expected.any() and not expected.all()


@pytest.mark.parametrize("name", ["dense", "leaky", "currents", "branches"])
def test_spikes_are_those_of_norse(name):
    graph, dt = GRAPHS[name]
    if name == "dense":  # norse reads no v_reset
        graph = chain((8,), *(graph.nodes[f"n{k}"] for k in range(3)), neurons("IF", 3), out=(3,))
    if name == "currents":
        graph = chain((8,), *(graph.nodes[f"n{k}"] for k in range(3)), neurons("CubaLIF", 3), out=(3,))
    if name == "branches":
        graph = unnested(graph)
    imported = from_nir(graph, dt=dt)
    events, signal = shown(imported.checkpoint.spec, STEPS)
    signal = signal.reshape(STEPS, *graph.nodes["input"].input_type["input"])
    expected = norse_spikes(graph, signal, dt or 1)
    found = run_events(imported.checkpoint, imported.conversion, events, STEPS, "numpy")
    np.testing.assert_array_equal(spikes(found), expected)
    assert expected.any()


def unnested(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Without the graph in the graph."""
    nodes, inner = dict(graph.nodes), graph.nodes["block"]
    del nodes["block"]
    nodes |= {"conv": inner.nodes["conv"], "inside": inner.nodes["fire"]}
    edges = [edge for edge in graph.edges if "block" not in edge]
    edges += [("fire", "conv"), ("conv", "inside"), ("inside", "down")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def test_read_outs_gather_and_tell_by_potential():
    draw = rng()
    before = (nir.Linear(exact(draw, 6, 8)), neurons("IF", 6), nir.Linear(exact(draw, 3, 6)))
    graph = chain((8,), *before, neurons("LI", 3), out=(3,))
    imported = from_nir(graph, dt=DT)
    assert not imported.conversion.fires("output")
    events, signal = shown(imported.checkpoint.spec, STEPS)
    found = run_events(imported.checkpoint, imported.conversion, events, STEPS)
    np.testing.assert_allclose(found.output_v[0], simulated(graph, signal.reshape(STEPS, 8), dt=DT), rtol=1e-5)
    graph = chain((8,), *before, out=(3,))
    imported = from_nir(graph)
    found = run_events(imported.checkpoint, imported.conversion, events, STEPS)
    expected = simulated(graph, signal.reshape(STEPS, 8)).cumsum(0)
    np.testing.assert_array_equal(found.output_v[0], expected)
    assert "does not fire" in imported.notes[-1]


def test_resets_steps_and_sizes_of_spikes():
    graph, _ = GRAPHS["resistance"]
    for reset in (None, "subtract"):
        imported = from_nir(graph, reset=reset)
        events, signal = shown(imported.checkpoint.spec, STEPS)
        found = run_events(imported.checkpoint, imported.conversion, events, STEPS)
        expected = simulated(graph, signal.reshape(STEPS, 8), dt=1e-4, subtract=reset == "subtract")
        np.testing.assert_array_equal(spikes(found), expected)
    one, whole = from_nir(graph, dt=np.float32(2e-4)), from_nir(graph, dt=1e-4, spike="1/dt")
    plain = from_nir(graph).checkpoint
    for name, weights in plain.weights.items():
        np.testing.assert_allclose(one.checkpoint.weights[name], 2 * weights, rtol=1e-6)
        np.testing.assert_allclose(whole.checkpoint.weights[name], 1e4 * weights, rtol=1e-6)
    for name, bias in plain.biases.items():  # a bias is no spike
        np.testing.assert_allclose(whole.checkpoint.biases[name], bias, rtol=1e-6)


@pytest.mark.parametrize(("name", "told"), [("dense", ["n3"]), ("resistance", [])])
def test_a_potential_of_reset_that_subtraction_leaves_out_is_told(name, told):
    notes = from_nir(GRAPHS[name][0], reset="subtract").notes
    assert [note.split(":")[0] for note in notes if "v_reset, which is not where v rests" in note] == told


def test_fires_above_the_threshold_alone():
    graph = chain((1,), nir.Linear(full(0.5, 1, 1)), neurons("IF", 1), out=(1,))
    imported = from_nir(graph)
    assert imported.conversion.thresholds["output"] == np.nextafter(np.float32(1), np.float32(2))
    events = np.array([[0, step, 0, 0, 0, 1] for step in range(6)])
    found = run_events(imported.checkpoint, imported.conversion, events, 6)
    assert spikes(found)[:, 0].tolist() == [0, 0, 1, 0, 0, 1]


def test_classes_are_in_the_order_of_the_graph():
    graph = chain((2, 3, 3), conv(exact(rng(), 2, 2, 2, 2)), neurons("IF", 2, 2, 2), out=(2, 2, 2))
    assert from_nir(graph).checkpoint.classes == ("0", "4", "1", "5", "2", "6", "3", "7")
    with pytest.raises(UserError, match="3 classes, but the network has 8 outputs"):
        from_nir(graph, classes=("a", "b", "c"))


@pytest.mark.parametrize("ends", [(0, -1), (1, -1), (1, 3), (0, 2)])
def test_flatten_may_count_the_batch(ends):
    draw = rng()
    graph = chain(
        (2, 3, 3), conv(exact(draw, 2, 2, 2, 2)), neurons("IF", 2, 2, 2), flat(2, 2, 2),
        nir.Linear(exact(draw, 3, 8)), neurons("IF", 3), out=(3,),
    )  # fmt: skip
    expected = from_nir(graph).checkpoint
    graph.nodes["n2"].start_dim, graph.nodes["n2"].end_dim = ends
    imported = from_nir(graph)
    assert imported.checkpoint.digest == expected.digest
    assert any("count the batch" in note for note in imported.notes) == (ends == (1, -1))


def test_the_older_files_have_no_v_reset(tmp_path):
    import h5py

    nir.write(tmp_path / "new.nir", GRAPHS["branches"][0])
    with h5py.File(tmp_path / "new.nir", "a") as file:
        del file["node/nodes/readout/v_reset"]
    imported = from_nir(tmp_path / "new.nir")
    assert imported.conversion.reset == "zero"
    assert any("older file" in note and "reset subtract" in note for note in imported.notes)


def bad(change) -> nir.NIRGraph:
    graph = unnested(branches())
    change(graph)
    return graph


def fields(name: str, **told):
    return lambda graph: vars(graph.nodes[name]).update(told)


def edges(*more, without=()):
    return lambda graph: setattr(graph, "edges", [e for e in graph.edges if e not in without] + list(more))


def node(name: str, made):
    return lambda graph: graph.nodes.update({name: made})


WRONG = {
    "flat (Flatten): its input_type is (4, 4, 3), what reaches it is 4x4x4": fields(
        "flat", input_type={"input": np.array([4, 4, 3])}
    ),
    "flat (Flatten): its start_dim is [0.0, 1.0], not 1 whole numbers": fields("flat", start_dim=np.array([0, 1])),
    "flat (Flatten): its end_dim is [0.5], not 1 whole numbers": fields("flat", end_dim=0.5),
    "fc (Linear): its weight has shape (5, 63), what reaches it is 64": fields("fc", weight=np.ones((5, 63))),
    "stem (Conv2d): its weight has shape (3, 4, 3, 3) in 1 groups, what reaches it is 2x8x8": fields(
        "stem", weight=np.ones((3, 4, 3, 3))
    ),
    "stem (Conv2d): its bias has shape (2,), and 3 are needed": fields("stem", bias=np.ones(2)),
    "stem (Conv2d): its padding is 'reflect'": fields("stem", padding="reflect"),
    "stem (Conv2d): its stride is [0.0, 1.0], not 2 whole numbers": fields("stem", stride=np.array([0, 1])),
    "stem (Conv2d): its kernel is larger than what reaches it": fields("stem", dilation=np.array([9, 9])),
    "stem (Conv2d): weight holds values that are not finite": fields("stem", weight=np.full((3, 2, 3, 3), np.nan)),
    "conv (Conv2d): its input_shape is (9, 9), what reaches it is 3x8x8": fields("conv", input_shape=(9, 9)),
    "fire (IF): its v_threshold has shape (3, 8, 7), what reaches it is 3x8x8": fields(
        "fire", v_threshold=full(1, 3, 8, 7)
    ),
    "fire (IF): its v_threshold, -1.0 above rest, is negative": fields("fire", v_threshold=full(-1, 3, 8, 8)),
    "fire (IF): its v_reset differs between neurons": fields("fire", v_reset=full(1, 3, 8, 8) * np.eye(8)),
    "r is from 1 to 2, and NIR has no time step": fields("fire", r=full(2, 3, 8, 8)),
    "readout has time constants, and NIR has no time step": node("readout", neurons("LIF", 5)),
    "output (Output): its shape is (4,), what reaches it is (5,)": node(
        "output", nir.Output({"output": np.array([4])})
    ),
    "skip (Delay): nodes of type Delay are not supported; a spike crosses all layers": node(
        "skip", nir.Delay(full(1, 3, 8, 8))
    ),
    "junction (IF): signals of different shapes meet there: 4x4x4 and 4x4x4 and 3x8x8": edges(("fire", "junction")),
    "fire -> inside -> conv is a circle; only feed-forward": edges(("inside", "fire")),
    "an edge goes from fc to gone, but there is no node gone": edges(("fc", "gone")),
    "two edges go from fc to readout": edges(("fc", "readout")),
    "output (Output): no edge leads to it": edges(without=[("readout", "output")]),
    "a graph with one Output is needed; those of this one: none": node("output", neurons("IF", 5)),
    "skip (Conv2d): no edge leads to it": edges(without=[("fire", "skip")]),
    "skip (LI): its potential is no output of the graph": node("skip", neurons("LI", 3, 8, 8)),
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_contradicts_itself_is_told_in_one_line(reason):
    dt = DT if " (LI)" in reason else None
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        from_nir(bad(WRONG[reason]), dt=dt)
    assert "\n" not in str(caught.value)


def test_a_node_in_the_middle_may_be_called_output():
    draw = rng()
    nodes = {
        "input": nir.Input({"input": np.array([8])}), "fc": nir.Linear(exact(draw, 6, 8)), "output": neurons("IF", 6),
        "fc2": nir.Linear(exact(draw, 3, 6)), "last": neurons("IF", 3), "out": nir.Output({"output": np.array([3])}),
    }  # fmt: skip
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
    imported = from_nir(graph)
    assert [p.name for p in imported.checkpoint.spec.populations] == ["input", "output_2", "output"]
    events, signal = shown(imported.checkpoint.spec, STEPS)
    expected = simulated(graph, signal.reshape(STEPS, 8))
    found = run_events(imported.checkpoint, imported.conversion, events, STEPS)
    np.testing.assert_array_equal(spikes(found), expected)
    assert expected.any()


def test_names_of_graphs_in_graphs_must_tell_nodes_apart():
    graph = branches()
    graph.nodes["block.fire"] = neurons("IF", 3, 8, 8)
    with pytest.raises(UserError, match=r"two nodes are called block\.fire"):
        from_nir(graph)


def test_a_size_of_spikes_that_is_none_is_refused():
    with pytest.raises(UserError, match="the signal of a spike is one of 1, 1/dt, got 2"):
        from_nir(GRAPHS["dense"][0], spike="2")


def test_time_constants_that_no_population_has():
    fc = nir.Linear(exact(rng(), 3, 8))
    lif = neurons("LIF", 3)
    lif.tau = DT * np.array([2, 2, 4])
    with pytest.raises(UserError, match="its tau differs between neurons; a population has one"):
        from_nir(chain((8,), fc, lif, out=(3,)), dt=DT)
    with pytest.raises(UserError, match=r"its tau is .* less than a step of 1"):
        from_nir(chain((8,), fc, neurons("LIF", 3), out=(3,)), dt=1)


def test_files_that_are_none(tmp_path):
    (tmp_path / "noise.nir").write_bytes(b"\x89HDF no graph")
    for name, reason in {"noise.nir": "is no graph of NIR, or damaged", "gone.nir": "there is no file"}.items():
        with pytest.raises(UserError, match=reason):
            from_nir(tmp_path / name)


def test_a_damaged_file_is_told_in_one_line(tmp_path):
    path: Path = tmp_path / "graph.nir"
    nir.write(path, GRAPHS["leaky"][0])
    content, told = path.read_bytes(), 0
    for seed in range(200):
        path.write_bytes(damaged(content, np.random.default_rng(seed)))
        try:
            from_nir(path, dt=DT)
        except UserError as error:
            assert "\n" not in str(error)
            told += 1
    assert told > 50


def test_the_documented_table_is_that_of_the_code():
    text = (ROOT / "docs" / "nir.md").read_text()
    assert text.partition("--nodes -->\n")[2].partition("\n<!-- end")[0] == nodes_table()
