"""The peer: a ViT in plain PyTorch on the same checkpoint, and MoXI's greedy loop as it was published.

The network uses what PyTorch users would: `F.linear`, `F.layer_norm`, and for attention either
`F.scaled_dot_product_attention` or, as the published code does, a product, a softmax and a product.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class TorchViT:
    """A Hugging Face ViT folder, evaluated with PyTorch. Images float32[B, 3, H, W]."""

    def __init__(self, folder: Path, *, fused_attention: bool, device: str = "cpu", dtype: torch.dtype = torch.float32):
        self.fused_attention = fused_attention
        config = json.loads((folder / "config.json").read_text())
        self.heads, self.layers = config["num_attention_heads"], config["num_hidden_layers"]
        self.eps, self.patch = config["layer_norm_eps"], config["patch_size"]
        w = {k: t.to(device, dtype) for k, t in load_file(folder / "model.safetensors").items()}
        self.w = w
        for i in range(self.layers):
            layer = f"vit.encoder.layer.{i}.attention.attention"
            for leaf in ("weight", "bias"):
                w[f"{i}.qkv.{leaf}"] = torch.cat([w[f"{layer}.{part}.{leaf}"] for part in ("query", "key", "value")])

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Patch tokens, position embedding added: [B, T, D]."""
        kernel = self.w["vit.embeddings.patch_embeddings.projection.weight"]
        bias = self.w["vit.embeddings.patch_embeddings.projection.bias"]
        x = F.conv2d(images, kernel, bias, stride=self.patch).flatten(2).transpose(1, 2)
        return x + self.w["vit.embeddings.position_embeddings"][:, 1:]

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] from patch tokens [B, n, D]."""
        w = self.w
        cls = w["vit.embeddings.cls_token"] + w["vit.embeddings.position_embeddings"][:, :1]
        x = torch.cat([cls.expand(len(tokens), -1, -1), tokens], dim=1)
        batch, count, width = x.shape
        for i in range(self.layers):
            layer = f"vit.encoder.layer.{i}"
            y = self._norm(x, f"{layer}.layernorm_before")
            qkv = F.linear(y, w[f"{i}.qkv.weight"], w[f"{i}.qkv.bias"])
            q, k, v = qkv.view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            if self.fused_attention:
                y = F.scaled_dot_product_attention(q, k, v)
            else:
                y = torch.softmax(q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5, dim=-1) @ v
            y = y.transpose(1, 2).reshape(batch, count, width)
            x = x + self._linear(y, f"{layer}.attention.output.dense")
            y = F.gelu(self._linear(self._norm(x, f"{layer}.layernorm_after"), f"{layer}.intermediate.dense"))
            x = x + self._linear(y, f"{layer}.output.dense")
        return self._linear(self._norm(x[:, 0], "vit.layernorm"), "classifier")

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], self.eps)


def log_odds(logits: torch.Tensor, target: int) -> torch.Tensor:
    """log p / (1 - p) of the target class."""
    others = logits.clone()
    others[:, target] = -torch.inf
    return logits[:, target] - others.logsumexp(1)


@torch.inference_mode()
def published_steps(
    model: TorchViT, image: torch.Tensor, target: int, *, insertion: bool
) -> Iterator[tuple[int, float]]:
    """The published procedure, step by step: at every step *every* patch is scored, those already chosen too; a copy of
    the image is embedded for each; the tokens of each copy are then selected; the order runs to the end.

    image: float32[3, H, W]. Yields each step's (patch, value).
    """
    players = int(model.embed(image[None]).shape[1])
    copies = image.expand(players, -1, -1, -1)
    chosen: list[int] = []
    for _ in range(players):
        tokens = model.embed(copies.contiguous())
        groups = [sorted({*chosen, b}) for b in range(players)]
        kept = groups if insertion else [sorted(set(range(players)) - set(g)) for g in groups]
        # A patch already chosen has nothing to add; it is scored all the same (and ignored below), with a token twice
        # or one too few, so that all rows are of one length.
        width = len(chosen) + 1 if insertion else players - len(chosen) - 1
        rows = [[*k, b][:width] for b, k in enumerate(kept)]
        picked = torch.cat([t[None, torch.tensor(r, dtype=torch.long)] for t, r in zip(tokens, rows, strict=True)])
        scores = log_odds(model.encode(picked), target)
        scores[chosen] = -torch.inf if insertion else torch.inf
        best = int(scores.argmax() if insertion else scores.argmin())
        chosen.append(best)
        yield best, float(scores[best])
