"""Random sequences of the operations that are supported, written as ONNX, give the graph's own outputs."""

import sys
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from netspec.ann import ANN
from netspec.errors import UserError
from netspec.importing import Coding, from_onnx, import_onnx
from netspec.importing.proof import MOST_DIFFERENCE


@dataclass
class Writer:
    """A graph in the making."""

    rng: np.random.Generator
    nodes: list = field(default_factory=list)
    stored: list = field(default_factory=list)

    def constant(self, array) -> str:
        name = f"c{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def numbers(self, *shape, low=-1.0, high=1.0) -> str:
        return self.constant(self.rng.uniform(low, high, shape).astype(np.float32))

    def add(self, kind: str, *inputs: str, **attributes) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def model(self, output: str, shape=(1, 2, 6, 7), classes=3) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
        scores = helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, classes])
        graph = helper.make_graph(self.nodes, "random", [image], [scores], self.stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def shape_of(writer: Writer, name: str) -> tuple[int, ...]:
    model = writer.model(name)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return ReferenceEvaluator(model).run(None, {"image": np.zeros((1, 2, 6, 7), np.float32)})[0].shape


small = st.integers(1, 3)


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    writer = Writer(np.random.default_rng(draw(st.integers(0, 2**16))))
    now, rectified, earlier = "image", False, []
    for _ in range(draw(st.integers(1, 6))):
        _, channels, height, width = shape_of(writer, now)
        kinds = ["conv", "conv", "relu", "clip", "norm", "average", "add", "concat", "slice", "turn", "pad", "scale"]
        kind = draw(st.sampled_from([*kinds, "max", "max"] if rectified else kinds))
        was = now
        if kind == "conv":
            groups = draw(st.sampled_from([n for n in (1, 2, channels) if channels % n == 0]))
            kernel, apart = (draw(small), draw(small)), (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
            pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
            reach = [(side - 1) * d + 1 for side, d in zip(kernel, apart, strict=True)]
            if reach[0] > height + pads[0] + pads[2] or reach[1] > width + pads[1] + pads[3]:
                continue
            out = groups * draw(small)
            bias = [writer.numbers(out)] if draw(st.booleans()) else []
            now = writer.add(
                *("Conv", now, writer.numbers(out, channels // groups, *kernel), *bias),
                strides=(draw(small), draw(small)), pads=pads, dilations=apart, group=groups, kernel_shape=kernel,
            )  # fmt: skip
        elif kind in ("relu", "clip"):
            bound = [writer.constant(np.float32(0)), writer.constant(np.float32(draw(st.floats(0.1, 2))))]
            now = writer.add("Relu", now) if kind == "relu" else writer.add("Clip", now, *bound)
        elif kind == "norm":
            positive = writer.numbers(channels, low=0.5, high=2)
            now = writer.add("BatchNormalization", now, positive, *[writer.numbers(channels) for _ in "ab"], positive)
        elif kind in ("average", "max"):
            kernel, stride = (draw(small), draw(small)), (draw(small), draw(small))
            if kind == "average" and draw(st.booleans()):
                kernel = stride = (2, 2)
            if kernel[0] > height or kernel[1] > width:
                continue
            pads = (
                [0] * 4
                if kind == "max" or draw(st.booleans())
                else [  # of padded maxima onnx knows less
                    draw(st.integers(0, side // 2)) for side in kernel * 2
                ]
            )
            more = {"count_include_pad": 1} if kind == "average" else {}
            operation = "AveragePool" if kind == "average" else "MaxPool"
            now = writer.add(operation, now, kernel_shape=kernel, strides=stride, pads=pads, **more)
        elif kind in ("add", "concat"):
            axes = slice(1, None) if kind == "add" else slice(2, None)
            shape = (1, channels, height, width)
            fitting = [name for name in earlier if shape_of(writer, name)[axes] == shape[axes]]
            other = draw(st.sampled_from([now, *fitting]))
            now = writer.add("Add", now, other) if kind == "add" else writer.add("Concat", other, now, axis=1)
        elif kind == "slice":
            begin = draw(st.integers(0, channels - 1))
            end = draw(st.integers(begin + 1, channels))
            ends = [writer.constant(np.array([n], np.int64)) for n in (begin, end, 1)]
            now = writer.add("Slice", now, *ends)
        elif kind == "turn":
            last = writer.add("Transpose", now, perm=(0, 2, 3, 1))
            last = writer.add("Mul", last, writer.numbers(channels, low=0.5, high=1))
            now = writer.add("Transpose", writer.add("Relu", last), perm=(0, 3, 1, 2))
        elif kind == "pad":
            pads = writer.constant(np.array([0, 0, *draw(st.tuples(*[st.integers(0, 1)] * 2)), 0, 1, 0, 1], np.int64))
            now = writer.add("Pad", now, pads)
        elif kind == "scale":
            now = writer.add("Mul", now, writer.numbers(1, channels, 1, 1))
            now = writer.add("Sub", now, writer.numbers(channels, 1, 1))
        earlier.append(was)
        rectified = kind in ("relu", "clip", "turn") or (kind == "max" and rectified)
    _, channels, height, width = shape_of(writer, now)
    end = draw(st.sampled_from(["gemm", "matmul", "mean"]))
    size = channels if end == "mean" else channels * height * width
    if end == "mean":
        now = writer.add("GlobalAveragePool", now)
    flat = writer.add("Flatten", now, axis=1)
    if draw(st.booleans()):
        positive = writer.numbers(size, low=0.5, high=2)
        flat = writer.add("BatchNormalization", flat, positive, *[writer.numbers(size) for _ in "ab"], positive)
    if end == "matmul":
        out = writer.add("Add", writer.add("MatMul", flat, writer.numbers(size, 3)), writer.numbers(3))
    else:
        out = writer.add("Gemm", flat, writer.numbers(3, size), writer.numbers(3), transB=1, alpha=0.5)
    return writer.model(out)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(graphs())
def test_random_graphs_give_their_own_outputs(model):
    coding = Coding(mean=(0.5, 0.4), std=(0.25, 0.2))
    try:
        imported = import_onnx(model, coding)
    except UserError as error:  # so much cut off that nothing of the image is left
        assert "the network's output does not depend on its input" in str(error)
        return
    shown = np.random.default_rng(3).integers(0, 256, (3, 6, 7, 2), dtype=np.uint8)
    import torch

    x = coding.checked(2).applied(shown).numpy()
    run = ReferenceEvaluator(model)
    expected = np.concatenate([run.run(None, {"image": image[None]})[0] for image in x])
    net = imported.checkpoint
    with torch.no_grad():
        found = ANN.of(net)(torch.from_numpy(net.encode(shown).transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=MOST_DIFFERENCE * np.abs(expected).max() + 1e-30)


def tiny(**changes) -> onnx.ModelProto:
    writer = Writer(np.random.default_rng(0))
    flat = writer.add("Flatten", writer.add("Relu", writer.add("Conv", "image", writer.numbers(4, 2, 3, 3))), axis=1)
    return writer.model(writer.add("Gemm", flat, writer.numbers(80, 3)), **changes)


def test_windows_that_ceil_mode_does_not_change(monkeypatch):
    """The reference of onnx makes 8x9 of 6x7 then."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    writer = Writer(np.random.default_rng(0))
    branch = writer.add("Relu", writer.add("Conv", "image", writer.numbers(4, 2, 1, 1)))
    window = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]}
    pooled = writer.add("MaxPool", branch, ceil_mode=1, **window)
    flat = writer.add("Flatten", writer.add("Add", branch, pooled), axis=1)
    net = from_onnx(writer.model(writer.add("Gemm", flat, writer.numbers(168, 3))))
    assert [population.shape for population in net.spec.populations] == [(6, 7, 2), *[(6, 7, 4)] * 2, (1, 1, 3)]


def test_channels_may_stand_last_in_the_input():
    writer = Writer(np.random.default_rng(0))
    first = writer.add("Transpose", "image", perm=(0, 3, 1, 2))
    flat = writer.add("Flatten", writer.add("Relu", writer.add("Conv", first, writer.numbers(4, 3, 3, 3))), axis=1)
    net = from_onnx(writer.model(writer.add("Gemm", flat, writer.numbers(80, 3)), (1, 6, 7, 3)))
    assert net.spec.input.shape == (6, 7, 3)


def test_a_size_that_is_left_open_is_asked_for():
    model = tiny(shape=("n", 2, "height", "width"))
    with pytest.raises(UserError, match=r"the graph leaves the size of its input open; .*--input"):
        import_onnx(model)
    assert from_onnx(model, shape=(2, 6, 7)).spec.input.shape == (6, 7, 2)
    with pytest.raises(UserError, match=r"the graph's input is \(2, 6, 7\) .*, not \(2, 6, 8\)"):
        import_onnx(tiny(), shape=(2, 6, 8))


def test_what_does_not_fit_together_is_told_in_one_line():
    with pytest.raises(UserError, match=r"does not fit what comes to it .*is --input what the network was made for\?$"):
        import_onnx(tiny(shape=("n", 2, "height", "width")), shape=(2, 9, 9))
    with pytest.raises(UserError, match=r"its weights are of 4 x 2 channels in 1 groups, and 3 channels come$"):
        import_onnx(tiny(shape=("n", "channels", "height", "width")), shape=(3, 6, 7))
    for options, message in {
        (("kernel_shape", (9, 9)),): "its window of 9x9 is larger than what comes",
        (("kernel_shape", (2, 2)), ("strides", (0, 0))): "AveragePool does not fit what comes to it",
        (("kernel_shape", (2, 2)), ("dilations", (2, 2))): r"its window leaves pixels out \(dilations\)",
    }.items():
        writer = Writer(np.random.default_rng(0))
        pooled = writer.add("AveragePool", "image", **dict(options))
        model = writer.model(writer.add("Gemm", writer.add("Flatten", pooled, axis=1), writer.numbers(60, 3)))
        with pytest.raises(UserError, match=message):
            import_onnx(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda graph: graph.input.pop(), "one input, images, is needed; the inputs of this one: none"),
        (lambda graph: graph.output.append(graph.output[0]), "a network with one output is needed, this one has 2"),
        (lambda graph: graph.input[0].type.tensor_type.shape.dim.pop(), "the network's input has 3 dimensions"),
        (lambda graph: setattr(graph.node[1], "op_type", "Sin"), "t1: Sin is not supported; no neuron of this project"),
        (lambda graph: setattr(graph.node[0], "input", ["image", "image"]), None),
        (
            lambda graph: graph.node[1].input.__setitem__(0, "gone"),
            "t1: no operation before it gives its input gone; the graph is damaged",
        ),
        (lambda graph: setattr(graph.input[0].type.tensor_type, "elem_type", TensorProto.UINT8), "no real numbers"),
        (lambda graph: setattr(graph.output[0], "name", "nowhere"), "output does not depend on its input"),
        (lambda graph: setattr(graph.output[0], "name", "c0"), "the network's output does not depend on its input"),
    ],
)
def test_graphs_that_are_none_of_a_network_are_told(change, message):
    model = tiny()
    if message is None:
        model.graph.node[0].input[1] = "image"
        message = "t0: Conv is not supported here: its weights depend on the image"
    else:
        change(model.graph)
    with pytest.raises(UserError, match=message):
        import_onnx(model)
