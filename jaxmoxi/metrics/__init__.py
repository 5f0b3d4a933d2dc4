"""How good an explanation is: pure functions of orders, scores and curves, each with its direction and endpoints.

An explanation is an *order* int32[P] of players, most important first, or *scores* float32[P], higher = more important.
Insertion and deletion curves are `jaxmoxi.insertion_curve` and `jaxmoxi.deletion_curve`. The functions here read such
curves, compare orders, and look where on the image the important players lie. `METRICS` lists by name what a study
measures with them.
"""

import importlib
import pkgutil

from jaxmoxi.games.imputation import noisy_linear_imputation
from jaxmoxi.games.removal import value_fns
from jaxmoxi.metrics.adversarial import AdversarialCurve, adversarial_curve
from jaxmoxi.metrics.agreement import (
    OrderAgreement,
    order_agreement,
    score_agreement,
    top_k_overlap,
    top_k_score_overlap,
)
from jaxmoxi.metrics.corruption_curves import CorruptionCurves, corruption_curve
from jaxmoxi.metrics.corruptions import CORRUPTIONS, corrupt
from jaxmoxi.metrics.curves import (
    Confidence,
    CurveBand,
    aggregate_curves,
    bootstrap_curves,
    curve_at,
    highest_confidence,
    probability_area,
    smallest_flip,
)
from jaxmoxi.metrics.faithfulness import (
    Completeness,
    completeness,
    faithfulness_correlation,
    infidelity,
    sensitivity_n,
)
from jaxmoxi.metrics.localisation import box_mask, crop_boxes, energy_inside, iou, pointing_game
from jaxmoxi.metrics.reconstruction import faithfulness_r2, interaction_mse, precision_at_k
from jaxmoxi.metrics.registry import METRICS, Column, Explained, Line, Metric, Number, Panels, register
from jaxmoxi.metrics.road import RoadCurve, road_curve
from jaxmoxi.metrics.robustness import Randomisation, max_sensitivity, parameter_randomisation
from jaxmoxi.metrics.second_order import interaction_order, second_order_deletion, second_order_insertion
from jaxmoxi.metrics.sparseness import complexity, sparseness

# A file registers its metrics when it is imported: a new one needs no line here.
for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")

__all__ = [
    "CORRUPTIONS",
    "METRICS",
    "AdversarialCurve",
    "Column",
    "Completeness",
    "Confidence",
    "CorruptionCurves",
    "CurveBand",
    "Explained",
    "Line",
    "Metric",
    "Number",
    "OrderAgreement",
    "Panels",
    "Randomisation",
    "RoadCurve",
    "adversarial_curve",
    "aggregate_curves",
    "bootstrap_curves",
    "box_mask",
    "completeness",
    "complexity",
    "corrupt",
    "corruption_curve",
    "crop_boxes",
    "curve_at",
    "energy_inside",
    "faithfulness_correlation",
    "faithfulness_r2",
    "highest_confidence",
    "infidelity",
    "interaction_mse",
    "interaction_order",
    "iou",
    "max_sensitivity",
    "noisy_linear_imputation",
    "order_agreement",
    "parameter_randomisation",
    "pointing_game",
    "precision_at_k",
    "probability_area",
    "register",
    "road_curve",
    "score_agreement",
    "second_order_deletion",
    "second_order_insertion",
    "sensitivity_n",
    "smallest_flip",
    "sparseness",
    "top_k_overlap",
    "top_k_score_overlap",
    "value_fns",
]
