"""Fidelity curves against the published rule, one mask at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p.inference import fidelity
from support.p2p import LEVELS, SHARES, labelled_scenes, spread_model


@pytest.fixture(scope="module")
def model():
    return spread_model()


@pytest.fixture(scope="module")
def data():
    return labelled_scenes()


def test_fidelity_is_what_one_mask_at_a_time_says(model, data):
    """The published rule, in plain Python."""
    out = p2p.predict(model, data.images, data.regions, certainty=LEVELS, batch_size=4)
    curves = p2p.fidelity(model, data.images, data.regions, out, shares=SHARES, batch_size=4)
    pixels = model.normalize(jnp.asarray(data.images))
    classify = jax.jit(lambda m, x, g, r: m.classify(x, g, r))
    for level in range(2):
        for t, share in enumerate(SHARES):
            shown = {"deletion": np.array(out.group_mask[level]), "insertion": np.array(out.group_mask[level])}
            for i in range(10):
                covered, reached = np.float32(0), False
                for g in np.argsort(-np.asarray(out.group_probs[level, i]), kind="stable"):
                    covered = covered + np.asarray(out.areas)[i, g]
                    if share > 0 and not reached:
                        shown["deletion"][i, g] = False
                    reached = reached or covered >= np.float32(share)
                    if share < 1 and reached:
                        shown["insertion"][i, g] = False
            for name, masks in shown.items():
                answer = classify(model, pixels, jnp.asarray(masks), jnp.asarray(data.regions)).argmax(-1)
                expected = np.mean(answer == out.classes[level])
                np.testing.assert_allclose(getattr(curves, name)[level, t], expected, err_msg=f"{name} {share}")
    assert curves.deletion.min() < 1
    assert curves.insertion.min() < 1


def test_fidelity_classifies_no_mask_twice(model, data, monkeypatch):
    calls = []
    run = fidelity.run_batch

    def counting(function, model, size, place, images, masks, regions):
        calls.extend((int(i), masks[0][j].tobytes()) for i, j in zip(images[1], masks[1], strict=True))
        return run(function, model, size, place, images, masks, regions)

    monkeypatch.setattr(fidelity, "run_batch", counting)
    out = p2p.predict(model, data.images, data.regions, certainty=LEVELS, batch_size=4)
    p2p.fidelity(model, data.images, data.regions, out, batch_size=4)
    assert len(calls) == len(set(calls)) > 0
    assert len(calls) < 10 * 2 * 19


def test_what_cannot_be(model, data):
    out = p2p.predict(model, data.images[:4], data.regions[:4], certainty=LEVELS, batch_size=4)
    with pytest.raises(ValueError, match=r"expected the prediction of these images, pixel_mask bool\[10, 32, 32\]"):
        p2p.fidelity(model, data.images, data.regions, out)
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        p2p.fidelity(model, data.images[:4], data.regions[:4], out, batch_size=0)
    with pytest.raises(ValueError, match=r"expected shares of the area, numbers in \[0, 1\]"):
        p2p.fidelity(model, data.images[:4], data.regions[:4], out, shares=(0.5, 1.5))
