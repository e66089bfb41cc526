"""What a network is, and where it comes from: descriptions, ANNs, images, training, thresholds. Without Brian2."""

__version__ = "0.1.0"
