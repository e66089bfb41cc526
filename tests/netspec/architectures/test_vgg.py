"""VGG-16 as a NetSpec, counted against the published list of layers."""

import pytest

from netspec.architectures.vgg import vgg16

# Configuration D of Simonyan and Zisserman (2014); "P" is a pooling layer.
LAYERS = [64, 64, "P", 128, 128, "P", 256, 256, 256, "P", 512, 512, 512, "P", 512, 512, 512, "P"]


def counted(size: int, hidden: int, classes: int) -> tuple[list[int], list[int]]:
    """Weights and multiply-accumulates of each layer, without biases and the zeros of the padding."""
    weights, macs, channels = [], [], 3
    for layer in LAYERS:
        if layer == "P":
            size //= 2
        else:
            weights.append(9 * channels * layer)
            macs.append((3 * size - 2) ** 2 * channels * layer)  # a border row lacks one of three kernel rows
            channels = layer
    for pre, post in ((size * size * channels, hidden), (hidden, hidden), (hidden, classes)):
        weights.append(pre * post)
        macs.append(pre * post)
    return weights, macs


@pytest.mark.parametrize(
    ("dataset", "size", "hidden", "classes"),
    [("cifar10", 32, 512, 10), ("imagenet", 224, 4096, 1000), ("cifar10", 96, 512, 10), ("imagenet", 32, 4096, 1000)],
)
def test_weights_and_macs_are_those_of_the_layer_list(dataset, size, hidden, classes):
    spec = vgg16(dataset, size=size)
    weights, macs = counted(size, hidden, classes)
    assert [p.kind for p in spec.projections] == ["conv"] * 13 + ["dense"] * 3
    assert spec.parameters() == sum(weights)
    assert [spec.macs(p) for p in spec.projections] == macs


def test_imagenet_has_the_published_number_of_weights():
    spec = vgg16("imagenet")
    assert spec.parameters() == 138_344_128  # 138,357,544 with the 13,416 biases
    assert spec.input.shape == (224, 224, 3)
    assert spec.output.shape == (1, 1, 1000)


def test_cifar10_network_is_a_chain_with_pooling_after_every_block():
    spec = vgg16()
    assert [p.pre for p in spec.projections] == [population.name for population in spec.populations[:-1]]
    assert [p.post for p in spec.projections] == [population.name for population in spec.populations[1:]]
    pooled = {p.pre for p in spec.projections if p.pool == 2}
    assert pooled == {"conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"}
    assert {p.pool for p in spec.projections} == {1, 2}
    assert spec["conv5_3"].shape == (2, 2, 512)
    assert spec.neurons() == 276_480 + 2 * 512 + 10
    assert not any(p.residual for p in spec.projections)


def test_dropout_is_after_every_relu_that_is_not_pooled():
    """Section 7.1; the output has no ReLU."""
    spec = vgg16(conv_dropout=0.2, dense_dropout=0.4)
    dropout = {population.name: population.dropout for population in spec.populations if population.dropout}
    unpooled = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2")
    assert dropout == dict.fromkeys(unpooled, 0.2) | {"dense6": 0.4, "dense7": 0.4}


def test_width_scales_channels_and_hidden_neurons_but_not_input_and_output():
    spec = vgg16(width=0.25)
    assert [population.shape[2] for population in spec.populations] == [
        *(3, 16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128),
        *(128, 128, 10),
    ]
    assert spec.name == "vgg16-cifar10-x0.25"
    assert vgg16(width=0.001)["conv1_1"].shape[2] == 1


def test_number_of_classes_can_be_chosen():
    assert vgg16(width=0.1, classes=7).output.shape == (1, 1, 7)


def test_other_sizes_are_in_the_name():
    assert vgg16(size=32) == vgg16()
    assert vgg16("imagenet", size=224) == vgg16("imagenet")
    spec = vgg16(width=0.5, size=64)
    assert spec.name == "vgg16-cifar10-x0.5-64"
    assert (spec.input.shape, spec["conv5_3"].shape) == ((64, 64, 3), (4, 4, 256))
    assert spec.weight_shape(spec.incoming("dense6")[0]) == (256, 4 * 256)


@pytest.mark.parametrize("size", [0, -32, 16, 100])
def test_size_that_cannot_be_halved_five_times_is_refused(size):
    with pytest.raises(ValueError, match=f"images of {size}x{size} .* multiple of 32"):
        vgg16(size=size)


def test_unknown_dataset_is_refused():
    with pytest.raises(ValueError, match="'mnist' is none of cifar10, imagenet"):
        vgg16("mnist")
