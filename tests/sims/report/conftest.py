"""What the tests of figures share: the style, a pair of axes."""

import pytest
from matplotlib.figure import Figure

from sims.report.style import style


@pytest.fixture(autouse=True)
def styled():
    with style():
        yield


@pytest.fixture
def ax():
    return Figure().subplots()
