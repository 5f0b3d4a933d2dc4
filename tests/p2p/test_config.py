import pytest

from jaxmoxi import p2p


def test_json_and_back():
    for classifier in (p2p.ViTConfig(patch_size=8), p2p.ResNetConfig(34), p2p.CNNConfig((8, 16))):
        config = p2p.Config(num_classes=3, image_size=64, classifier=classifier, threshold=0.2)
        assert p2p.Config.from_json(config.to_json()) == config
    options = p2p.Config(num_classes=3, threshold_input="rerank", exact_budget=True, fill=0.5)
    assert p2p.Config.from_json(options.to_json()) == options
    for text in ("{", '{"num_classes": 3}', "[]", '{"num_classes": 3, "classifier": {"kind": "mlp"}}'):
        with pytest.raises(ValueError, match="expected the JSON of a p2p.Config"):
            p2p.Config.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 1}, "num_classes must be a whole number of at least 2; got 1"),
        ({"num_groups": 0}, "num_groups must be a whole number of at least 1; got 0"),
        ({"image_size": 100}, "image_size 100 is not a multiple of patch_size 16"),
        ({"embedding_size": -1}, "embedding_size must be at least 0; got -1"),
        ({"selector": "unet"}, 'expected a selector of "lraspp" or "small"'),
        ({"threshold_input": "film"}, 'expected a threshold_input of "shift" or "rerank"; got \'film\''),
        ({"threshold_input": "rerank", "dynamic_threshold": False}, "needs dynamic_threshold=True"),
        ({"threshold": 0.0}, r"threshold must lie in \(0, 1\]; got 0.0"),
        ({"classifier": "vit"}, "expected a classifier of ViTConfig, ResNetConfig or CNNConfig; got 'vit'"),
        ({"min_threshold": 0.2, "max_threshold": 0.1}, "expected min_threshold <= max_threshold; got 0.2 and 0.1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        p2p.Config(**{"num_classes": 4, **changes})
    with pytest.raises(ValueError, match="ResNet depth of 18 or 34; got 50"):
        p2p.ResNetConfig(50)
    with pytest.raises(ValueError, match="widths that are multiples of 8; got \\(12, 24\\)"):
        p2p.CNNConfig((12, 24))
