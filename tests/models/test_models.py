import pytest

import jaxmoxi as jm


@pytest.mark.parametrize(
    ("old", "new"), [("ViTConfig", "VisionTransformerConfig"), ("CNNConfig", "InvertedResidualConfig")]
)
def test_old_names_of_the_configs_still_work(old, new):
    with pytest.warns(DeprecationWarning, match=f"jaxmoxi.models.{old} is now {new}"):
        assert getattr(jm.models, old) is getattr(jm.models, new)
    assert old not in jm.models.__all__
    assert getattr(jm.p2p, old) is not getattr(jm.models, new)


def test_other_names_are_unknown():
    with pytest.raises(AttributeError, match="has no attribute 'BERTConfig'"):
        _ = jm.models.BERTConfig
