"""VGG-16 without bias and batch norm (section 5 of the paper; Simonyan and Zisserman 2014)."""

from netspec.spec import NetSpec, Population, Projection

__all__ = ["vgg16"]

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
IMAGE_SIZE = {"cifar10": 32, "imagenet": 224}
HIDDEN = {"cifar10": 512, "imagenet": 4096}
CLASSES = {"cifar10": 10, "imagenet": 1000}


def vgg16(
    dataset: str = "cifar10",
    width: float = 1.0,
    classes: int | None = None,
    conv_dropout: float = 0.1,
    dense_dropout: float = 0.3,
    size: int | None = None,
    hidden: int | None = None,
) -> NetSpec:
    """VGG-16: thirteen 3x3 convolutions in five blocks, two hidden dense layers, the output.

    Average pooling by 2 follows every block, folded into the next projection.

    Parameters
    ----------
    dataset : {'cifar10', 'imagenet'}
        32x32 images and 512 hidden neurons, or 224x224 and 4096.
    width : float
        Factor on the number of channels and hidden neurons.
    classes : int, optional
        Size of the output layer; 10 or 1000 by default.
    conv_dropout, dense_dropout : float
        Dropout after every ReLU that is not followed by pooling (section 7.1).
    size : int, optional
        Side of the images, a multiple of 32; 32 or 224 by default. The first dense layer sees (size / 32)**2
        positions.
    hidden : int, optional
        Neurons of each hidden dense layer; by default 512 or 4096, times the width.
    """
    if dataset not in IMAGE_SIZE:
        raise ValueError(f"dataset {dataset!r} is none of {', '.join(IMAGE_SIZE)}")
    name = f"vgg16-{dataset}-x{width:g}" + (f"-{size}" if size not in (None, IMAGE_SIZE[dataset]) else "")
    name += f"-hidden{hidden}" if hidden else ""
    size = IMAGE_SIZE[dataset] if size is None else size
    if size < 32 or size % 32:
        raise ValueError(f"images of {size}x{size} cannot be halved five times: the size must be a multiple of 32")
    populations = [Population("input", (size, size, 3), kind="input")]
    projections = []

    def append(population: Population, **projection) -> None:
        projections.append(Projection(populations[-1].name, population.name, **projection))
        populations.append(population)

    pool = 1
    for block, channels in enumerate(BLOCKS, start=1):
        for layer, n in enumerate(channels, start=1):
            dropout = 0.0 if layer == len(channels) else conv_dropout
            population = Population(f"conv{block}_{layer}", (size, size, scaled(n, width)), dropout=dropout)
            append(population, kind="conv", kernel=3, padding=1, pool=pool)
            pool = 1
        size, pool = size // 2, 2
    for layer in (6, 7):
        neurons = hidden or scaled(HIDDEN[dataset], width)
        append(Population(f"dense{layer}", (1, 1, neurons), dropout=dense_dropout), kind="dense", pool=pool)
        pool = 1
    append(Population("output", (1, 1, classes or CLASSES[dataset])), kind="dense")
    return NetSpec(name, tuple(populations), tuple(projections))


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width``, at least one."""
    return max(1, round(channels * width))
