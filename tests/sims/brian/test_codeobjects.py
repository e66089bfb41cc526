"""Code objects of this project's templates."""

import numpy as np
import pytest
from brian2 import BrianObject, Network, NeuronGroup, SpikeGeneratorGroup, ms, prefs

from sims.brian.codeobjects import CythonTemplates
from sims.brian.synapses import SharedProjection
from sims.simulation.geometry import Geometry


def test_what_cython_cannot_compile_is_told(monkeypatch, capfd):
    """Brian2 2.9 passes over such errors, and nothing would run: a template for real numbers on an integer variable."""
    target = prefs.codegen.target
    prefs.codegen.target = "cython"
    try:
        pre, post = SpikeGeneratorGroup(2, [0], [0] * ms), NeuronGroup(3, "v : integer")
        geometry = Geometry(1, 1, 2, 1, 1, 3, 1, 1, 1, 1, 0, 0, 1, False)
        projection = SharedProjection(pre, post, geometry, np.ones(6, np.float32))
        assert issubclass(projection.codeobj_class, CythonTemplates) and isinstance(projection, BrianObject)
        with pytest.raises(Exception, match="Error encountered with object named") as caught:
            Network(pre, post, projection).run(1 * ms)
    finally:
        prefs.codegen.target = target
    assert "Cython cannot compile the block 'run'" in str(caught.value.__cause__)
    assert "Cannot assign type 'int32_t *' to 'float *'" in "".join(capfd.readouterr())
