"""The settings of a training run: what cannot be, the old ways to give them, and the presets."""

import dataclasses
import json
import warnings

import jax
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p import presets
from jaxmoxi.p2p.data import Augmentation
from jaxmoxi.p2p.inference.batches import classify_kept
from jaxmoxi.p2p.training.config import Objective, with_moved
from support.trainer import CONFIG, TRAIN, Grid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_epochs": 0}, "num_epochs must be a whole number of at least 1; got 0"),
        ({"num_samples": 1.5}, "num_samples must be a whole number of at least 1; got 1.5"),
        ({"whole_epochs": 20}, "whole_epochs must lie in 0 .. num_epochs - 1 = 19; got 20"),
        ({"final_temperature": 0.0}, r"final_temperature must lie in \(0, 1\]; got 0.0"),
        ({"regulariser": "l2"}, 'expected a regulariser of "kl" or "l1"'),
        ({"regulariser_weight": -1.0}, "regulariser_weight must be at least 0"),
        ({"growth": "cosine"}, 'expected a growth of "linear" or "geometric"; got \'cosine\''),
        (
            {"growth": "geometric"},
            "needs full_first_epoch=False and anneal=True; got full_first_epoch=True",
        ),
        (
            {"growth": "geometric", "full_first_epoch": False, "anneal": False},
            "got full_first_epoch=False, anneal=False",
        ),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1; got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"save_every": 0}, "save_every must be a whole number of at least 1; got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"seed": 2**32}, r"seed must be below 2\*\*32"),
        ({"eval_every": 1.5}, "eval_every must be a whole number of at least 1; got 1.5"),
        ({"regulariser_weight": float("nan")}, "regulariser_weight must be at least 0 and finite; got nan"),
        ({"weight_decay": float("nan")}, "weight_decay must be at least 0 and finite; got nan"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"schedule": "linear"}, 'expected a schedule of "cosine" or "constant"'),
        ({"warmup": 1.0}, r"warmup is a share of the steps, in \[0, 1\); got 1.0"),
        ({"certainty": 0.0}, r"certainty must lie in \(0, 1\]; got 0.0"),
        ({"validation_share": 1.0}, r"validation_share must lie in \(0, 1\); got 1.0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        p2p.TrainConfig(**changes)


def test_the_objective_is_a_part_of_the_settings():
    train = p2p.TrainConfig(num_epochs=7, logit_weight=0.5, batch_size=3, seed=4)
    assert train.objective == Objective(num_epochs=7, logit_weight=0.5)
    assert train.objective == dataclasses.replace(train, seed=5).objective


def test_a_record_has_what_decides_what_a_run_computes():
    train = p2p.TrainConfig(augment=Augmentation(crop=None), save_every=3)
    record = json.loads(json.dumps(train.to_record()))
    assert record == dataclasses.replace(train, save_every=None).to_record()
    assert record["augment"] == repr(train.augment)
    assert record != dataclasses.replace(train, augment=True).to_record()


def test_presets_are_a_model_and_its_training():
    assert presets.PRESETS.keys() == {"scenes", "imagenet", "cifar10", "cifar10-96"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in presets.PRESETS.values():
            config, train = make(4)
            assert (type(config), type(train)) == (p2p.Config, p2p.TrainConfig)
            assert config.num_classes == 4
    assert presets.scenes().train.whole_epochs == 4


def test_what_trains_is_no_part_of_a_model():
    with pytest.warns(DeprecationWarning, match=r"p2p.Config\(num_epochs=...\) is deprecated; .*TrainConfig\(num_ep"):
        config = dataclasses.replace(CONFIG, num_epochs=2)
    assert config == CONFIG
    assert hash(config) == hash(CONFIG)
    assert config.to_json() == CONFIG.to_json()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dataclasses.replace(config, num_groups=9).moved == {"num_epochs": 2}  # until `fit` finds it
    with pytest.raises(ValueError, match="num_epochs must be"), pytest.warns(DeprecationWarning, match="num_epochs"):
        dataclasses.replace(CONFIG, num_epochs=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'batch_size'"):
        p2p.Config(num_classes=3, batch_size=3)


def test_older_files_say_more_than_what_a_model_is():
    older = json.loads(CONFIG.to_json()) | {"num_epochs": 16, "whole_epochs": 4, "regulariser": "kl"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert p2p.Config.from_json(json.dumps(older)) == CONFIG
    with pytest.raises(ValueError, match="expected the JSON of a p2p.Config"):
        p2p.Config.from_json(json.dumps(older | {"batch_size": 3}))


def test_old_keywords_become_settings():
    with pytest.warns(DeprecationWarning, match=r"p2p.fit\(seed=..., warmup=...\) is deprecated; .*train=p2p.TrainCo"):
        found = with_moved(None, {"num_epochs": 3}, {"seed": 4, "warmup": 0.5}, stacklevel=1)
    assert found == p2p.TrainConfig(num_epochs=3, seed=4, warmup=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert with_moved(TRAIN, {}, {}, stacklevel=1) == TRAIN
        assert with_moved(p2p.TrainConfig(seed=4), {"num_epochs": 3}, {}, stacklevel=1).num_epochs == 3
        with pytest.raises(ValueError, match="num_epochs is given twice, as 9 in the old way and as 3 in the Train"):
            with_moved(TRAIN, {"num_epochs": 9}, {}, stacklevel=1)
    with pytest.raises(TypeError, match=r"fit\(\) got an unexpected keyword argument 'epochs'$"):
        p2p.fit(CONFIG, Grid(), epochs=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_epochs'; it is a setting of p2p.TrainConfig"):
        p2p.fit(CONFIG, Grid(), num_epochs=3)


@pytest.mark.slow
def test_the_old_ways_train_the_same_model_and_models_of_other_epochs_share_a_prediction():
    new = p2p.fit(CONFIG, Grid(), train=dataclasses.replace(TRAIN, num_epochs=2), progress=False)
    with pytest.warns(DeprecationWarning, match="num_epochs"):
        config = dataclasses.replace(CONFIG, num_epochs=2, whole_epochs=1)
    with pytest.warns(DeprecationWarning, match="batch_size"):
        old = p2p.fit(config, Grid(), batch_size=16, learning_rate=1e-3, progress=False)
    for a, b in zip(*(jax.tree.leaves(r.model) for r in (new, old)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert old.model.config.moved is None

    short = p2p.fit(CONFIG, Grid(), train=dataclasses.replace(TRAIN, num_epochs=1, whole_epochs=0), progress=False)
    assert short.model.config == new.model.config
    batch = Grid().batch(0)
    p2p.predict(new.model, batch.images, batch.regions)
    compiled = classify_kept._cache_size()
    p2p.predict(short.model, batch.images, batch.regions)
    assert classify_kept._cache_size() == compiled
