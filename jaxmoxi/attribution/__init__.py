"""Attribution methods with one signature: `explain(key, problem, *, options) -> scores float32[P]`, higher = more
important. `METHODS` has them by name."""

import importlib
import pkgutil

from jaxmoxi.attribution.attention import attention_rollout
from jaxmoxi.attribution.cam import grad_cam, grad_cam_plus_plus
from jaxmoxi.attribution.game import Problem, order_of, problem
from jaxmoxi.attribution.gradients import gradient
from jaxmoxi.attribution.groups import moxi, moxi_single, random_scores, shapley
from jaxmoxi.attribution.holding import robust
from jaxmoxi.attribution.methods import METHODS, Effort, Method, register
from jaxmoxi.attribution.path import PathAttribution, integrated_gradients, path_attribution
from jaxmoxi.attribution.perturbation import hsic, occlusion, rise

# A file registers its methods when it is imported: a new one needs no line here.
for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")

__all__ = [
    "METHODS",
    "Effort",
    "Method",
    "PathAttribution",
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
    "path_attribution",
    "problem",
    "random_scores",
    "register",
    "rise",
    "robust",
    "shapley",
]
