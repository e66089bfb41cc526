"""Networks that were trained elsewhere: torch modules and ONNX files become checkpoints, or one line says why not."""

from netspec.importing.proof import Coding
from netspec.importing.sources import Imported, from_onnx, from_torch, import_onnx, import_torch

__all__ = ["Coding", "Imported", "from_onnx", "from_torch", "import_onnx", "import_torch"]
