"""A CNN for CIFAR-10 in plain torch, as anybody writes it: biases, batch norm, max pooling.

``python docs/examples/cnn.py`` trains it in some minutes into cnn.pt; docs/networks.md brings it into Brian2.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def block(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(),
        nn.MaxPool2d(2),
    )  # fmt: skip


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(block(3, 32), block(32, 64), block(64, 128))
        self.hidden = nn.Linear(128 * 4 * 4, 256)
        self.classes = nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.flatten(self.features(x), 1)
        x = F.dropout(F.relu(self.hidden(x)), 0.3, self.training)
        return self.classes(x)


def images(split: str, folder: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images and their classes; torchvision.datasets.CIFAR10 has the same."""
    from netspec.data import cifar10

    data = cifar10(split, folder)
    x = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None], torch.from_numpy(data.labels)


def train(epochs: int = 6, folder: str | None = None) -> None:
    torch.manual_seed(0)
    x, labels = images("train", folder)
    net = CNN().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    batches = len(x) // 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=epochs * batches)
    for epoch in range(epochs):
        net.train()
        order = torch.randperm(len(x))
        for batch in order[: batches * 128].split(128):
            shown = x[batch]
            if torch.rand(()) < 0.5:
                shown = shown.flip(3)
            loss = F.cross_entropy(net(shown), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.2f}", flush=True)
    net.eval()
    test, classes = images("test", folder)
    parts = zip(test.split(500), classes.split(500), strict=True)
    with torch.no_grad():
        wrong = sum(int((net(part).argmax(1) != of).sum()) for part, of in parts)
    print(f"error on the test images: {wrong / len(test):.2%}")
    torch.save(net.state_dict(), "cnn.pt")


if __name__ == "__main__":
    train(folder=sys.argv[1] if len(sys.argv) > 1 else None)
