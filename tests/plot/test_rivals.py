"""What is hidden is red: the pictures of `discriminate`, and of groups that are hidden."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.errors import InputError
from support.explain import searched_for


def test_the_picture_of_either_second_phase_and_of_values_alone(unchecked):
    photo, regions = np.full((20, 30, 3), 90, np.uint8), np.arange(6).reshape(2, 3).repeat(10, 0).repeat(10, 1)
    weights = jnp.asarray([[3.0, 0, 0, 1, 0, 0], [0, 4, 1, 0, 0, 0]])
    for insertion in (False, True):
        found = jm.discriminate(lambda m: m @ weights[0], lambda m: m @ weights[1], 6, insertion=insertion)
        figure = jm.plot.discrimination(photo, regions, found, target="cat", predicted="dog", title="t")
        assert figure.axes[1].get_title() == "1 region removed"
        assert figure.axes[3].get_ylabel() == "payoff"
        assert "cat leads with 1 removed" in figure.axes[3].get_title()
        red = figure.axes[1].images[0].get_array()
        assert red[5, 15, 0] > 2 * red[5, 15, 1]  # player 1, and no other
        assert (red[5, 5] == 90).all()
    with pytest.raises(InputError, match="expected a Discrimination"):
        jm.plot.discrimination(photo, regions, np.arange(6))
    with pytest.raises(InputError, match="of one image of 1 regions"):
        jm.plot.discrimination(photo, np.zeros((20, 30), int), found)


def test_the_picture_of_a_target_that_never_leads_shows_where_it_is_nearest():
    photo, regions = np.full((20, 20, 3), 90, np.uint8), np.arange(4).reshape(2, 2).repeat(10, 0).repeat(10, 1)
    figure = jm.plot.discrimination(photo, regions, searched_for([0.2, 0.4, 0.1, 0.1, 0.1], None), target="cat")
    assert figure.axes[1].get_title().startswith("1 region removed\ncat: 40 %")
    assert figure.axes[2].get_title() == "cat is at its highest there,\nand misses the goal"
    red = figure.axes[1].images[0].get_array()[..., 0] > 150
    assert red[:10, :10].all()
    assert not red[10:].any()
    assert figure.axes[3].get_title() == ""


def test_where_the_higher_of_two_lines_does_not_lead_is_marked():
    photo, regions = np.full((20, 20, 3), 90, np.uint8), np.arange(4).reshape(2, 2).repeat(10, 0).repeat(10, 1)

    def logits(images):  # with one region gone the target passes the class predicted, and a third one is above both
        gone = jnp.stack([(images[:, y, x, 0] == 0) for y in (0, 10) for x in (0, 10)], -1).sum(-1)
        steps = jnp.array([[0.0, 2.0, 1.0], [1.5, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
        return steps[gone]

    target, predicted = (jm.pixel_value_fn(logits, jnp.ones((20, 20, 3)), c, jnp.asarray(regions)) for c in (0, 1))
    found = jm.discriminate(target, predicted, 4)
    axes = jm.plot.discrimination(photo, regions, found, target="cat", predicted="dog").axes[3]
    (mark,) = [line for line in axes.lines if line.get_label() == "higher, but does not lead"]
    np.testing.assert_array_equal(mark.get_xdata(), [1])
    assert "cat leads with 2 removed" in axes.get_title()


def test_a_hidden_group_is_red_on_the_photo_as_it_is():
    photo, regions = np.full((20, 20, 3), 90, np.uint8), np.arange(4).reshape(2, 2).repeat(10, 0).repeat(10, 1)
    rows = np.array([[True, False, False, False], [False, True, False, False]])
    figure = jm.plot.groups(photo, regions, rows, hidden=[False, True])
    shown, hidden = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[1:])
    assert (shown[:10, :10] == 90).all()
    assert (shown[:10, 10:] > 90).all()  # faded
    assert (hidden[:10, :10] == 90).all()
    assert (hidden[:10, 10:, 0] > 2 * hidden[:10, 10:, 1]).all()
    with pytest.raises(ValueError, match="expected hidden to say it of each of the 2 groups; got 1"):
        jm.plot.groups(photo, regions, rows, hidden=[True])
