"""Vision transformers' weights in the names and layouts of Google's JAX code, made from those in timm's names."""

import numpy as np


def flax_arrays(tensors, heads, *, root="", big_vision=False, stacked=False):
    """The arrays of a `.npz` from a network in timm's names, every one of them used."""
    mha, mlp, norm2 = (0, 0, 1) if big_vision else (1, 3, 2)
    position = "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding"
    arrays = {
        "embedding/kernel": tensors["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": tensors["patch_embed.proj.bias"],
        "cls": tensors["cls_token"],
        position: tensors["pos_embed"],
        "Transformer/encoder_norm/scale": tensors["norm.weight"],
        "Transformer/encoder_norm/bias": tensors["norm.bias"],
        "head/kernel": tensors["head.weight"].T,
        "head/bias": tensors["head.bias"],
    }
    layers = []
    for i in range(sum(name.endswith("norm1.weight") for name in tensors)):
        of = {n.removeprefix(f"blocks.{i}."): t for n, t in tensors.items() if n.startswith(f"blocks.{i}.")}
        width = of["norm1.weight"].shape[0]
        layer = {}
        for norm, theirs in (("LayerNorm_0", "norm1"), (f"LayerNorm_{norm2}", "norm2")):
            layer |= {f"{norm}/scale": of[f"{theirs}.weight"], f"{norm}/bias": of[f"{theirs}.bias"]}
        for j in range(2):
            layer[f"MlpBlock_{mlp}/Dense_{j}/kernel"] = of[f"mlp.fc{j + 1}.weight"].T
            layer[f"MlpBlock_{mlp}/Dense_{j}/bias"] = of[f"mlp.fc{j + 1}.bias"]
        attention = f"MultiHeadDotProductAttention_{mha}"
        for j, part in enumerate(("query", "key", "value")):
            rows = slice(j * width, (j + 1) * width)
            layer[f"{attention}/{part}/kernel"] = of["attn.qkv.weight"][rows].T.reshape(width, heads, -1)
            layer[f"{attention}/{part}/bias"] = of["attn.qkv.bias"][rows].reshape(heads, -1)
        layer[f"{attention}/out/kernel"] = of["attn.proj.weight"].T.reshape(heads, -1, width)
        layer[f"{attention}/out/bias"] = of["attn.proj.bias"]
        layers.append(layer)
    if stacked:
        arrays |= {f"Transformer/encoderblock/{n}": np.stack([layer[n] for layer in layers]) for n in layers[0]}
    else:
        arrays |= {f"Transformer/encoderblock_{i}/{n}": a for i, layer in enumerate(layers) for n, a in layer.items()}
    return {root + name: array for name, array in arrays.items()}
