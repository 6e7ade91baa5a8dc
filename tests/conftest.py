"What all tests of the library share: figures that are never shown, fixed seeds, and a few digits."
import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from fcnet.data import Data, get_data, normalize

matplotlib.use('agg')

def pytest_configure(config):
    config.addinivalue_line('markers', 'processes: starts processes of its own, or takes seconds (make test-processes)')
    config.addinivalue_line('markers', 'slow: trains for seconds to check what a lesson claims (make test-slow)')

@pytest.fixture(autouse=True)
def clean_start():
    "Each test starts from the same random numbers and leaves no figure open."
    torch.manual_seed(0)
    yield
    plt.close('all')

@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    "Run a test in an empty folder of its own."
    monkeypatch.chdir(tmp_path)
    return tmp_path

@pytest.fixture(scope='session')
def digits():
    "MNIST, normalized by the training digits: `x_train, y_train, x_valid, y_valid`."
    x, y, x_valid, y_valid = get_data()
    mean = x.mean()
    std = x.std()
    return Data(normalize(x, mean, std), y, normalize(x_valid, mean, std), y_valid)

@pytest.fixture
def few(digits):
    "640 digits to learn from and 640 to judge by."
    return Data(*(t[:640] for t in digits))
