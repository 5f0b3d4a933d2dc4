"""The peer: P2P in plain PyTorch, trained and asked as it was published.

The selector is torchvision's `lraspp_mobilenet_v3_large` (dilated), its two heads replaced by 1x1 convolutions to D
channels, the classifier a Hugging Face ViT, both in the names of their state dicts. The networks use what PyTorch users
would (`F.conv2d`, `F.batch_norm`, `F.scaled_dot_product_attention`, `torch.distributions`, `torch.optim.Adam`).

What the published code does, and this one with it:

    a training step  the selector runs to its end; then both heads once more, on inputs to which each image's threshold
                     was added, and the result is enlarged to the image again. The groups' covariance gets more and more
                     jitter until a Cholesky factor exists; the normal distribution computes another one. The Monte
                     Carlo samples are classified one after the other.
    a prediction     the selector's network runs once. For every threshold of the grid the heads, the enlargement, the
                     group means, the jitter loop, the mask and the classifier run on the *whole* batch, until every
                     image is certain or the thresholds end. At the thresholds found, selector and classifier run again.

So the published prediction does not run the selector's whole network for each threshold; that would be slower, and the
comparison would flatter us.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.distributions import MultivariateNormal, RelaxedBernoulli

_EPS = 1e-6
# (kernel, hidden channels, output channels, squeeze and excite, activation, stride, dilation)
_BLOCKS = (
    (3, 16, 16, False, F.relu, 1, 1),
    (3, 64, 24, False, F.relu, 2, 1),
    (3, 72, 24, False, F.relu, 1, 1),
    (5, 72, 40, True, F.relu, 2, 1),
    (5, 120, 40, True, F.relu, 1, 1),
    (5, 120, 40, True, F.relu, 1, 1),
    (3, 240, 80, False, F.hardswish, 2, 1),
    (3, 200, 80, False, F.hardswish, 1, 1),
    (3, 184, 80, False, F.hardswish, 1, 1),
    (3, 184, 80, False, F.hardswish, 1, 1),
    (3, 480, 112, True, F.hardswish, 1, 1),
    (3, 672, 112, True, F.hardswish, 1, 1),
    (5, 672, 160, True, F.hardswish, 1, 2),
    (5, 960, 160, True, F.hardswish, 1, 2),
    (5, 960, 160, True, F.hardswish, 1, 2),
)
_SELECTOR, _CLASSIFIER = "selector.importance_predictor.model.", "classifier.model."


class Terms(NamedTuple):
    """The loss and its three parts, scalars."""

    total: torch.Tensor
    target: torch.Tensor
    sparsity: torch.Tensor
    covariance: torch.Tensor


class Answer(NamedTuple):
    """logits float32[B, K], thresholds float32[B], group probabilities float32[B, G]; how often either network ran."""

    logits: torch.Tensor
    threshold: torch.Tensor
    group_probs: torch.Tensor
    selector_runs: int
    classifier_runs: int


class TorchP2P:
    """The published model, its dynamic threshold and its training.

    state_dict: name -> array, with the prefixes of the published code.
    fill:       float32[3], a hidden pixel, normalised.

    Images are float32[B, 3, H, W], normalised; regions int64[B, H, W].
    """

    def __init__(
        self, state_dict: Mapping[str, np.ndarray], *, num_heads: int, num_groups: int, fill: np.ndarray,
        num_samples: int = 1, min_threshold: float = 0.05, temperature: float = 1.0, weight: float = 10.0,
        covariance_weight: float = 0.01, learning_rate: float = 1e-4,
    ):  # fmt: skip
        self.w = {name: torch.from_numpy(np.array(array)) for name, array in state_dict.items()}
        self.parameters = [
            tensor.requires_grad_() for name, tensor in self.w.items() if not name.endswith(("_mean", "_var"))
        ]
        self.optimizer = torch.optim.Adam(self.parameters, lr=learning_rate)
        self.num_layers = 1 + max(int(n.split(".layer.")[1].split(".")[0]) for n in self.w if ".layer." in n)
        self.num_heads, self.num_groups, self.num_samples = num_heads, num_groups, num_samples
        self.fill = torch.from_numpy(np.array(fill, np.float32)).view(1, 3, 1, 1, 1)
        self.min_threshold, self.temperature = min_threshold, temperature
        self.weight, self.covariance_weight = weight, covariance_weight
        self.training = False

    # The networks.

    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The inputs of the selector's two heads, at an eighth of the image's side."""
        x = low = self._conv_norm(images, "backbone.0", F.hardswish, stride=2)
        for i, (kernel, hidden, fan_out, squeeze, act, stride, dilation) in enumerate(_BLOCKS, 1):
            at, start, j = f"backbone.{i}.block", x, 0
            if hidden != x.shape[1]:
                x, j = self._conv_norm(x, f"{at}.0", act), 1
            margin = dilation * (kernel - 1) // 2
            x = self._conv_norm(
                x, f"{at}.{j}", act, stride=stride, padding=margin, dilation=dilation, groups=hidden
            )  # fmt: skip
            if squeeze:
                j += 1
                y = F.relu(self._conv(F.adaptive_avg_pool2d(x, 1), f"{at}.{j}.fc1"))
                x = x * F.hardsigmoid(self._conv(y, f"{at}.{j}.fc2"))
            x = self._conv_norm(x, f"{at}.{j + 1}", None)
            x = x + start if stride == 1 and start.shape[1] == fan_out else x
            low = x if i == 4 else low
        x = self._conv_norm(x, "backbone.16", F.hardswish)
        scale = torch.sigmoid(F.conv2d(F.adaptive_avg_pool2d(x, 1), self.w[f"{_SELECTOR}classifier.scale.1.weight"]))
        x = self._conv_norm(x, "classifier.cbr", F.relu, eps=1e-5, momentum=0.1) * scale
        return low, F.interpolate(x, size=low.shape[-2:], mode="bilinear", align_corners=False)

    def importance(self, low: torch.Tensor, high: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """D numbers for every pixel, [B, D, H, W], from the inputs of the heads."""
        x = self._conv(low, "classifier.low_classifier") + self._conv(high, "classifier.high_classifier")
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    def _conv(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.conv2d(x, self.w[f"{_SELECTOR}{name}.weight"], self.w[f"{_SELECTOR}{name}.bias"])

    def _conv_norm(self, x, name, act, *, stride=1, padding=None, dilation=1, groups=1, eps=1e-3, momentum=0.01):
        kernel, norm = self.w[f"{_SELECTOR}{name}.0.weight"], f"{_SELECTOR}{name}.1."
        padding = kernel.shape[-1] // 2 if padding is None else padding
        x = F.conv2d(x, kernel, None, stride, padding, dilation, groups)
        x = F.batch_norm(
            x, self.w[f"{norm}running_mean"], self.w[f"{norm}running_var"], self.w[f"{norm}weight"],
            self.w[f"{norm}bias"], self.training, momentum, eps,
        )  # fmt: skip
        return x if act is None else act(x)

    def classify(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [B, K]."""
        w, root = self.w, f"{_CLASSIFIER}vit."
        kernel = w[f"{root}embeddings.patch_embeddings.projection.weight"]
        bias = w[f"{root}embeddings.patch_embeddings.projection.bias"]
        x = F.conv2d(images, kernel, bias, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
        x = torch.cat([w[f"{root}embeddings.cls_token"].expand(len(x), -1, -1), x], dim=1)
        x = x + w[f"{root}embeddings.position_embeddings"]
        batch, count, width = x.shape
        for i in range(self.num_layers):
            layer = f"{root}encoder.layer.{i}."
            y = self._norm(x, f"{layer}layernorm_before")
            q, k, v = (
                self._linear(y, f"{layer}attention.attention.{part}").view(batch, count, self.num_heads, -1)
                for part in ("query", "key", "value")
            )
            y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
            y = y.transpose(1, 2).reshape(batch, count, width)
            x = x + self._linear(y, f"{layer}attention.output.dense")
            y = F.gelu(self._linear(self._norm(x, f"{layer}layernorm_after"), f"{layer}intermediate.dense"))
            x = x + self._linear(y, f"{layer}output.dense")
        return self._linear(self._norm(x, f"{root}layernorm")[:, 0], f"{_CLASSIFIER}classifier")

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-12)

    # Groups and masks.

    def group_means(self, regions: torch.Tensor, values: torch.Tensor, reduce: str = "mean") -> torch.Tensor:
        """[B, D, H, W] -> [B, D, G]."""
        index = regions.flatten(1).unsqueeze(1).expand(-1, values.shape[1], -1)
        means = values.new_zeros(*values.shape[:2], self.num_groups)
        return means.scatter_reduce_(2, index, values.flatten(2), reduce=reduce, include_self=False)

    def select(
        self, importance: torch.Tensor, regions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Samples of the groups kept [B, G, S] (outside of training, the likely groups); probabilities; covariance."""
        means = self.group_means(regions, importance)
        mu, embeddings = means[:, 0], means[:, 1:]
        sigma = _until_positive_definite(embeddings.mT @ embeddings)
        if not self.training:
            kept = (torch.sigmoid(mu) > 0.5).float().unsqueeze(-1).expand(-1, -1, self.num_samples)
            return kept, torch.sigmoid(mu), sigma
        logits = MultivariateNormal(mu, sigma).rsample(torch.Size([self.num_samples])).movedim(0, -1)
        relaxed = RelaxedBernoulli(torch.tensor([self.temperature]), probs=torch.sigmoid(logits))
        return relaxed.rsample(), torch.sigmoid(mu), sigma

    def masked(self, images: torch.Tensor, regions: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """What the classifier sees, [B, 3, H, W, S]."""
        index = regions.flatten(1).unsqueeze(-1).expand(-1, -1, kept.shape[-1])
        mask = torch.gather(kept, 1, index).unflatten(1, regions.shape[1:]).unsqueeze(1).expand(-1, 3, -1, -1, -1)
        return images.unsqueeze(-1) * mask + self.fill * (1 - mask)

    def predict_masked(self, seen: torch.Tensor) -> torch.Tensor:
        """log(mean probability + 1e-6), one sample after the other."""
        probs = torch.stack([F.softmax(self.classify(x), dim=1) for x in seen.unbind(-1)])
        return torch.log(probs.mean(0) + _EPS)

    # A step, and a prediction.

    def objective(self, images: torch.Tensor, regions: torch.Tensor, labels: torch.Tensor) -> Terms:
        """The loss of a batch, at random thresholds."""
        low, high = self.features(images)
        size = images.shape[-2:]
        self.importance(low, high, size)  # the selector runs to its end; then again from its heads on
        tau = torch.empty(len(images)).uniform_(self.min_threshold, 1.0)
        shift = tau.view(-1, 1, 1, 1)
        kept, probs, sigma = self.select(self.importance(low + shift, high + shift, size), regions)
        log_probs = self.predict_masked(self.masked(images, regions, kept))

        areas = self.group_means(regions, torch.ones_like(regions).unsqueeze(1), "sum").squeeze(1)
        share = (probs * areas).sum(1) / regions[0].numel()
        excess = torch.clamp(share - tau, min=0.0)
        least = -torch.log(1 - tau + _EPS).mean()
        sparsity = self.weight * -torch.log(1 - tau + _EPS - excess).mean() - self.weight * least
        target = F.cross_entropy(log_probs, labels)
        covariance = self.covariance_weight * sigma.abs().mean()
        return Terms(target + sparsity + covariance, target, sparsity, covariance)

    def train_step(self, images: torch.Tensor, regions: torch.Tensor, labels: torch.Tensor) -> Terms:
        """One step of Adam."""
        self.training = True
        terms = self.objective(images, regions, labels)
        self.optimizer.zero_grad()
        terms.total.backward()
        self.optimizer.step()
        self.training = False
        return terms

    @torch.no_grad()
    def predict(self, images: torch.Tensor, regions: torch.Tensor, *, certainty: float) -> Answer:
        """The published search for each image's threshold, and the prediction there."""
        size, runs = images.shape[-2:], 0
        low, high = self.features(images)
        self.importance(low, high, size)
        tau = torch.full((len(images), 1, 1, 1), self.min_threshold)
        certain = torch.zeros(len(images), dtype=torch.bool)
        while tau.max() < 1.0 and not certain.all():
            kept, _, _ = self.select(self.importance(low + tau, high + tau, size), regions)
            log_probs = self.predict_masked(self.masked(images, regions, kept))
            runs += 1
            certain |= F.softmax(log_probs, dim=-1).max(1)[0] >= certainty
            tau += (1 - certain.float()).view(-1, 1, 1, 1) * self.min_threshold
        tau.clamp_(max=1.0)
        low, high = self.features(images)
        self.importance(low, high, size)
        kept, probs, _ = self.select(self.importance(low + tau, high + tau, size), regions)
        log_probs = self.predict_masked(self.masked(images, regions, kept))
        return Answer(log_probs, tau.flatten(), probs, 2, runs + 1)


def _until_positive_definite(sigma: torch.Tensor) -> torch.Tensor:
    """Ten times as much jitter on the diagonal until a Cholesky factor exists."""
    jitter = 1e-6
    while torch.linalg.cholesky_ex(sigma).info.any():
        sigma.diagonal(dim1=-2, dim2=-1).add_(jitter)
        jitter *= 10
    return sigma
