"""Networks that were trained elsewhere, as torch modules, ONNX files or NIR graphs: checkpoints, or why not."""

from netspec.importing.nir import ImportedNir, from_nir
from netspec.importing.proof import Coding
from netspec.importing.sources import Imported, from_onnx, from_torch, import_onnx, import_torch

__all__ = ["Coding", "Imported", "ImportedNir", "from_nir", "from_onnx", "from_torch", "import_onnx", "import_torch"]
