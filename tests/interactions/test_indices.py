"""The weights of derivatives against their sum, written out."""

from fractions import Fraction
from math import comb

import pytest

from jaxmoxi.interactions import INDICES
from jaxmoxi.interactions.indices import derivative_weights


@pytest.mark.parametrize("name", INDICES)
def test_weights_of_derivatives(name):
    p, weight = Fraction(3, 10), INDICES[name].weight
    for n, order in [(2, 1), (5, 2), (8, 3)]:
        for s in range(order + 1):
            expected = [
                sum((-1) ** k * comb(n - s - t, k) * weight(s, s + t + k, order, p) for k in range(n - s - t + 1))
                for t in range(n - s + 1)
            ]
            assert list(derivative_weights(name, n, s, order, p)) == expected


def test_a_thousand_players():
    weights = derivative_weights("SII", 1000, 2, 2, Fraction(1, 2))
    assert weights[10] == Fraction(1, 999 * comb(998, 10))
    assert sum(w * comb(998, t) for t, w in enumerate(weights)) == 1
