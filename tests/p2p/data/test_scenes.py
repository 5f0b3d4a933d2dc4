"""The synthetic scenes are what they say."""

import jax
import numpy as np
import pytest

from jaxmoxi.p2p.data import CLASSES, synthetic_scenes


@pytest.fixture(scope="module")
def scenes():
    return synthetic_scenes(jax.random.key(0), 200)


def test_shapes_and_areas(scenes):
    assert scenes.images.shape == (200, 64, 64, 3)
    assert scenes.images.dtype == np.uint8
    shares = np.asarray(scenes.objects).mean((1, 2))
    assert shares.min() > 0.09
    assert shares.max() < 0.25
    assert set(np.asarray(scenes.labels).tolist()) == set(range(len(CLASSES)))
    inside = np.asarray(scenes.objects)[:, 1:-1, 1:-1].sum((1, 2))
    np.testing.assert_array_equal(inside, np.asarray(scenes.objects).sum((1, 2)))  # never cut by the border


def test_the_key_decides(scenes):
    again = synthetic_scenes(jax.random.key(0), 200)
    np.testing.assert_array_equal(scenes.images, again.images)
    assert not np.array_equal(scenes.images, synthetic_scenes(jax.random.key(1), 200).images)


def test_background_and_colour_do_not_tell_the_class(scenes):
    """The mean colour of object and background, of each class, within what chance allows."""
    images, labels = np.asarray(scenes.images) / 255, np.asarray(scenes.labels)
    objects = np.asarray(scenes.objects)
    for part in (objects, ~objects):
        colours = (images * part[..., None]).sum((1, 2)) / part.sum((1, 2))[:, None]
        for label in range(len(CLASSES)):
            own, rest = colours[labels == label], colours[labels != label]
            error = np.sqrt(own.var(0) / len(own) + rest.var(0) / len(rest))
            assert (np.abs(own.mean(0) - rest.mean(0)) < 4 * error).all()


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be():
    for kwargs in ({"count": 0}, {"image_size": 8}, {"num_classes": 7}, {"num_distractors": -1}):
        with pytest.raises(ValueError, match="expected count >= 1, image_size >= 16, num_classes in 2 .. 6"):
            synthetic_scenes(jax.random.key(0), **{"count": 3, **kwargs})
