"""The methods by name, with what each is, where it comes from and what it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from jaxmoxi.attribution.attention import attention_rollout
from jaxmoxi.attribution.cam import grad_cam, grad_cam_plus_plus
from jaxmoxi.attribution.game import Problem, need_attention, need_features, need_gradients
from jaxmoxi.attribution.gradients import gradient, integrated_gradients
from jaxmoxi.attribution.groups import moxi, moxi_single, random_scores, shapley
from jaxmoxi.attribution.perturbation import hsic, occlusion, rise

_CHECKS: Mapping[str, Callable[[Problem, str], None]] = {
    "gradients": need_gradients,
    "features": need_features,
    "attention": need_attention,
}


@dataclasses.dataclass(frozen=True)
class Method:
    """One attribution method.

    name:     as in `METHODS`.
    explain:  (key, problem, *, options) -> scores float32[P], higher is more important.
    source:   the paper.
    needs:    of the model: "gradients" of its logits, its "features" (a CNN's, or a vision transformer's tokens), its
              "attention" (vision transformers only); "" if the game is enough.
    draws:    `explain` needs a key; the others take None.
    directed: `explain` takes `insertion=True` or False, and has an order for each.
    """

    name: str
    explain: Callable[..., Any]
    source: str
    needs: Literal["", "gradients", "features", "attention"] = ""
    draws: bool = False
    directed: bool = False

    def applies(self, problem: Problem) -> None:
        """Raises ValueError that says what is missing where the method cannot explain this problem."""
        if self.needs:
            _CHECKS[self.needs](problem, self.name)


_MOXI = "Sumiyasu, Kawamoto and Kera, CVPR 2024"

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method("grad-cam", grad_cam, "Selvaraju et al., ICCV 2017", "features"),
            Method("grad-cam++", grad_cam_plus_plus, "Chattopadhay et al., WACV 2018", "features"),
            Method("attention-rollout", attention_rollout, "Abnar and Zuidema, ACL 2020", "attention"),
            Method("gradient", gradient, "Simonyan, Vedaldi and Zisserman, ICLR workshop 2014", "gradients"),
            Method("integrated-gradients", integrated_gradients, "Sundararajan, Taly and Yan, ICML 2017", "gradients"),
            Method("occlusion", occlusion, "Zeiler and Fergus, ECCV 2014"),
            Method("rise", rise, "Petsiuk, Das and Saenko, BMVC 2018", draws=True),
            Method("hsic", hsic, "Novello, Fel and Vigouroux, NeurIPS 2022", draws=True),
            Method("shapley", shapley, "Castro, Gómez and Tejada, Computers & Operations Research 2009", draws=True),
            Method("moxi-single", moxi_single, _MOXI, directed=True),
            Method("moxi", moxi, _MOXI, directed=True),
            Method("random", random_scores, "no source: chance", draws=True),
        )
    }
)
