"""A tiny model, fresh, and as it stands on disk: written once, and copied for each test that changes its files."""

import shutil

import jax
import pytest

from jaxmoxi import p2p
from support.trainer import CONFIG, NAMES


@pytest.fixture(scope="session")
def fresh_model():
    return p2p.init(jax.random.key(0), CONFIG)


@pytest.fixture(scope="session")
def written(fresh_model, tmp_path_factory):
    """The folder that `p2p.save` wrote; nobody changes it."""
    path = tmp_path_factory.mktemp("written") / "model"
    p2p.save(path, fresh_model, class_names=NAMES)
    return path


@pytest.fixture
def saved(written, tmp_path):
    return shutil.copytree(written, tmp_path / "model")
