"""Attribution methods with one signature: `explain(key, problem, *, options) -> scores float32[P]`, higher = more
important. `METHODS` has them by name."""

from jaxmoxi.attribution.attention import attention_rollout
from jaxmoxi.attribution.cam import grad_cam, grad_cam_plus_plus
from jaxmoxi.attribution.game import Problem, order_of, problem
from jaxmoxi.attribution.gradients import gradient, integrated_gradients
from jaxmoxi.attribution.groups import moxi, moxi_single, random_scores, shapley
from jaxmoxi.attribution.methods import METHODS, Method
from jaxmoxi.attribution.perturbation import hsic, occlusion, rise

__all__ = [
    "METHODS",
    "Method",
    "Problem",
    "attention_rollout",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient",
    "hsic",
    "integrated_gradients",
    "moxi",
    "moxi_single",
    "occlusion",
    "order_of",
    "problem",
    "random_scores",
    "rise",
    "shapley",
]
