"""Small networks as people write them in torch, with statistics that are not the default."""

import torch
import torch.nn.functional as F
from torch import nn


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3, bias=False), nn.ReLU(True),
        nn.Flatten(), nn.Linear(8 * 6 * 6, 12), nn.Dropout(0.5), nn.ReLU(), nn.Linear(12, 5), nn.Softmax(dim=1),
    )  # fmt: skip


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for width in (8, 8, "M", 12, "M", 16, "M"):
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(16, 5))


class Basic(nn.Module):
    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(
            nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
        )

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self, *blocks: nn.Module, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layers = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(out, 5)

    def forward(self, x):
        x = self.layers(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in range(2):
            y = x
            for layer in (2 * block, 2 * block + 1):
                y = self.convs[layer](self.norms[layer](y).relu())
            x = x + y
        return self.fc(x.relu().mean((2, 3)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * n) for n in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * n, 4, 3, padding=1) for n in range(3))
        self.last = nn.BatchNorm2d(18)
        self.transition = nn.Conv2d(18, 8, 1)
        self.fc = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        x = F.avg_pool2d(self.transition(F.relu(self.last(x))), 2)
        return self.fc(F.relu(x).view(x.size(0), -1))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=2)
        self.b1, self.b3 = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, (1, 3), padding=(0, 1))
        self.b5, self.bp = nn.Conv2d(8, 4, (5, 1), padding=(2, 0)), nn.Conv2d(8, 2, 1)
        self.after, self.fc = nn.Conv2d(16, 8, 3, dilation=2), nn.Linear(8, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 3, stride=1, padding=1)
        pooled = F.avg_pool2d(x, 3, stride=1, padding=1)
        x = torch.cat([F.relu(self.b1(x)), F.relu(self.b3(x)), self.b5(x).relu(), F.relu(self.bp(pooled))], dim=1)
        x = F.relu(self.after(F.max_pool2d(x, 2, ceil_mode=True)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1))


class Fire(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(3, 4, 1)
        self.one, self.three = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 3, padding=1)
        self.classifier = nn.Conv2d(12, 5, 1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        x = F.relu(torch.cat([self.one(x), self.three(x)], 1))
        return F.adaptive_avg_pool2d(F.relu(self.classifier(x)), (1, 1)).reshape(-1, 5)


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True))
        self.depth = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.Conv2d(8, 12, 1), nn.Hardtanh(0, 6))
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.project(self.depth(self.expand(x)))
        return self.fc(self.head(x).mean([2, 3]))


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.branch = nn.Sequential(
            nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 1), nn.ReLU(),
        )  # fmt: skip
        self.grouped, self.fc = nn.Conv2d(8, 8, 1, groups=2), nn.Linear(8, 5)

    @staticmethod
    def shuffled(x):
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    def forward(self, x):
        x = F.relu(self.stem(x))
        one, two = x.chunk(2, dim=1)
        x = self.shuffled(torch.cat((one, self.branch(two)), 1))
        x = F.relu(self.grouped(self.shuffled(x)))
        return self.fc(x.mean((-1, -2)))


class ChannelsLast(nn.Module):
    """Takes and handles images as (channels, height, width), but works on them with the channels last in between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pixels = nn.Conv2d(3, 8, 3, padding="same"), nn.Linear(8, 6)
        self.more, self.fc = nn.Conv2d(14, 4, 3, stride=2), nn.Linear(7 * 7 * 4, 5)

    def forward(self, x):
        x = self.conv(x).permute(0, 2, 3, 1).relu()
        x = torch.cat([x, F.relu(self.pixels(x) * 0.5 + 1)], dim=-1)
        x = F.relu(self.more(x.permute(0, 3, 1, 2)))
        return self.fc(x.permute(0, 2, 3, 1).flatten(1))


class Functional(nn.Module):
    """Everything by functions; batch norm after ReLU, before a convolution with zeros around; a type-A shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 10, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.conv3 = nn.Conv2d(10, 4, (3, 2), stride=(2, 1))
        self.fc1, self.fc2 = nn.Linear(4 * 3 * 9, 7), nn.Linear(7, 5)

    def forward(self, x):
        x = self.norm(torch.relu(self.conv1(x)))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = torch.clamp(self.conv2(x) + shortcut, min=0)
        x = F.relu(self.conv3(F.pad(x, (1, 1, 0, 0))))
        x = torch.flatten(x, 1)
        return F.log_softmax(self.fc2(F.dropout(self.fc1(x), 0.5, self.training)), dim=1)


class Repeated(nn.Module):
    """A shared module, several ReLUs on one tensor, kernels of two sizes between the same populations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.one, self.fc = nn.Conv2d(6, 6, 1), nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x) - 0.5 * F.relu(-x)
        x = F.relu(self.shared(x) + self.one(x))
        x = F.relu(self.shared(x) + x + x)
        return self.fc(F.avg_pool2d(x, x.shape[-1]).view(x.shape[0], -1))


NETWORKS = {
    "plain": plain,
    "vgg": vgg,
    "resnet-basic": lambda: ResNet(Basic(8, 8), Basic(8, 12, 2), out=12),
    "resnet-bottleneck": lambda: ResNet(Bottleneck(8, 4), Bottleneck(16, 4, 2), out=16),
    "pre-activation": PreActivation,
    "dense": Dense,
    "inception": Inception,
    "fire": Fire,
    "mobile": Mobile,
    "shuffle": Shuffle,
    "channels-last": ChannelsLast,
    "functional": Functional,
    "repeated": Repeated,
}


def network(name: str) -> nn.Module:
    """One of the networks, with random weights and statistics."""
    torch.manual_seed(0)
    module = NETWORKS[name]()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            with torch.no_grad():
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.3, 2)
                layer.weight.uniform_(0.3, 1.5)
                layer.bias.normal_(0, 0.3)
    return module.eval()
