"""ResNet-20 and ResNet-34 without bias and batch norm (section 6 of the paper; He et al. 2016)."""

from dataclasses import dataclass

from netspec.architectures.vgg import scaled
from netspec.spec import NetSpec, Population, Projection

__all__ = ["CONSTRAINTS", "DesignConstraints", "resnet20", "resnet34"]


@dataclass(frozen=True)
class DesignConstraints:
    """What a converted ResNet-20 keeps of the paper's constraints (section 6, figure 3)."""

    label: str
    suffix: str  # of the network's name
    junction_relu: bool
    preprocessing: bool
    unit: bool  # residual units have threshold 1

    @property
    def checkpoint(self) -> str:
        """Name of the shipped network."""
        return f"resnet20-cifar10{self.suffix}"

    @property
    def thresholds(self) -> str:
        """Name of the file of thresholds beside it."""
        return "spike-norm-unit" if self.unit else "spike-norm"


CONSTRAINTS = {  # each together with those before it
    "none": DesignConstraints("basic architecture", "-basic", False, False, False),
    "1": DesignConstraints("1: junction ReLUs", "-constraint1", True, False, False),
    "2": DesignConstraints("2: unit thresholds", "-constraint1", True, False, True),
    "3": DesignConstraints("3: pre-processing layers", "", True, True, True),
}


def resnet20(
    width: float = 1.0,
    junction_relu: bool = True,
    preprocessing: bool = True,
    classes: int = 10,
    branch_dropout: float = 0.1,
) -> NetSpec:
    """ResNet-20 for 32x32 images: three stages of three units with 16, 32 and 64 channels.

    Parameters
    ----------
    width : float
        Factor on the number of channels.
    junction_relu : bool
        Constraint 1 (section 6.1): the junctions are integrate-and-fire neurons. Otherwise they are relays.
    preprocessing : bool
        Constraint 3 (section 6.3): two plain 3x3 convolutions before the first.
    classes : int
    branch_dropout : float
        Dropout on the ReLU inside each residual branch, and nowhere else (section 7.1).
    """
    front = [(16, 1)] * 3 if preprocessing else [(16, 1)]
    return _resnet(
        "resnet20-cifar10", 32, front, [(16, 3), (32, 3), (64, 3)], width, junction_relu, classes, branch_dropout
    )


def resnet34(
    width: float = 1.0,
    junction_relu: bool = True,
    classes: int = 1000,
    branch_dropout: float = 0.1,
) -> NetSpec:
    """ResNet-34 for 224x224 images, with three 3x3 convolutions in place of the 7x7 one (section 6.3).

    The paper does not say where they reduce the image; here the first and the third have stride 2, and there
    is no pooling after them. Parameters as for :func:`resnet20`.
    """
    front = [(64, 2), (64, 1), (64, 2)]
    stages = [(64, 3), (128, 4), (256, 6), (512, 3)]
    return _resnet("resnet34-imagenet", 224, front, stages, width, junction_relu, classes, branch_dropout)


def _resnet(
    name: str,
    size: int,
    front: list[tuple[int, int]],
    stages: list[tuple[int, int]],
    width: float,
    junction_relu: bool,
    classes: int,
    dropout: float,
) -> NetSpec:
    """Plain convolutions (channels, stride), then stages of residual units (channels, units)."""
    populations = [Population("input", (size, size, 3), kind="input")]
    projections = []

    def convolve(post: str, channels: int, stride: int, kind: str = "if", rate: float = 0.0, residual: bool = False):
        pre = populations[-1]
        side = (pre.shape[0] - 1) // stride + 1
        populations.append(Population(post, (side, side, scaled(channels, width)), kind, rate))
        projections.append(Projection(pre.name, post, "conv", kernel=3, stride=stride, padding=1, residual=residual))

    plain = [f"pre{k}" for k in range(1, len(front))] + ["conv1"]
    for layer, (channels, stride) in zip(plain, front, strict=True):
        convolve(layer, channels, stride)
    for stage, (channels, units) in enumerate(stages, start=2):
        for unit in range(1, units + 1):
            stride = 2 if unit == 1 and stage > 2 else 1
            start, junction = populations[-1].name, f"conv{stage}_{unit}"
            convolve(f"{junction}_branch", channels, stride, rate=dropout, residual=True)
            convolve(junction, channels, 1, "if" if junction_relu else "relay", residual=True)
            projections.append(Projection(start, junction, "identity", stride=stride))
    populations.append(Population("output", (1, 1, classes)))
    last = populations[-2]
    projections.append(Projection(last.name, "output", "dense", pool=last.shape[0]))
    kept = [c for c in CONSTRAINTS.values() if junction_relu >= c.junction_relu and (len(front) > 1) >= c.preprocessing]
    return NetSpec(f"{name}{kept[-1].suffix}-x{width:g}", tuple(populations), tuple(projections))
