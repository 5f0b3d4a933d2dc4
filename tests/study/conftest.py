"""A tiny model, photos, and a study of both that nothing interrupted."""

import pytest

from jaxmoxi.study import run_study
from support.study import tiny_classifier, tiny_config, write_photos


@pytest.fixture(scope="session")
def models():
    return {"tiny": tiny_classifier()}


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def whole(models, photos, tmp_path_factory):
    """A study that nothing interrupted."""
    out = tmp_path_factory.mktemp("studies") / "whole"
    run_study(photos, models, out, tiny_config(), shard_size=2, progress=False)
    return out
