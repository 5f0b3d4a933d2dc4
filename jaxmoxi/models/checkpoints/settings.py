"""What a `config.json` may say: a value of each kind, and which keys change a network."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from jaxmoxi.errors import InputError, warn
from jaxmoxi.models.checkpoints.torch_pickle import brief

MOST_PIXELS = 1 << 14  # of a side of an image: far beyond what any network takes
_MOST = 1 << 24

# What Hugging Face writes for every model, and what matters in training alone.
HARMLESS = {
    "_attn_implementation", "_commit_hash", "_name_or_path", "architectures", "attention_probs_dropout_prob",
    "attn_implementation", "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward",
    "classifier_dropout_prob", "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty",
    "do_pooling", "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "encoder_stride",
    "eos_token_id", "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id",
    "hidden_dropout_prob", "id2label", "ignore_keys_at_rope_validation", "initializer_range", "is_decoder",
    "is_encoder_decoder", "label2id", "length_penalty", "library_name", "license", "max_length", "min_length",
    "model_type", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_classes", "num_labels",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_scores", "pad_token_id",
    "pooler_act", "pooler_output_size", "prefix", "problem_type", "remove_invalid_values", "repetition_penalty",
    "return_dict", "return_dict_in_generate", "semantic_loss_ignore_index", "sep_token_id", "suppress_tokens",
    "tags", "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tie_word_embeddings",
    "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p",
    "use_bfloat16", "use_cache",
}  # fmt: skip
# About photos and the origin of weights. timm's older files have these keys beside `architecture`.
TIMM_CFG = {
    "classifier", "crop_mode", "crop_pct", "custom_load", "file", "first_conv", "fixed_input_size", "hf_hub_filename",
    "hf_hub_id", "input_size", "interpolation", "labels", "mean", "min_input_size", "origin_url", "paper_ids",
    "paper_name", "pool_size", "source", "std", "tag", "test_crop_pct", "test_input_size", "url",
}  # fmt: skip
# timm's names of a transformer's default norm, which null stands for.
LAYER_NORMS = ("layernorm", "layer_norm")
# Of these Hugging Face's networks of any family become others.
FIXED = {"add_cross_attention": False, "auto_map": None, "pruned_heads": None, "quantization_config": None}


def whole(settings: Mapping[str, Any], name: str, default: int, *, most: int = _MOST) -> int:
    """A whole number from 1 to `most`; `default` where the key is absent."""
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InputError(f"{name} must be a whole number from 1 to {most}; got {brief(repr(value))}: correct it")
    return value


def number(settings: Mapping[str, Any], name: str, default: float, *, least: float, most: float) -> float:
    """A number from `least` to `most`; `default` where the key is absent."""
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InputError(f"{name} must be a number from {least:g} to {most:g}; got {brief(repr(value))}: correct it")
    return float(value)


def flag(settings: Mapping[str, Any], name: str, default: bool) -> bool:
    """True or false; `default` where the key is absent."""
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false; got {brief(repr(value))}: correct it")
    return value


def text(settings: Mapping[str, Any], name: str, default: str) -> str:
    """A name; `default` where the key is absent."""
    value = settings.get(name, default)
    if not isinstance(value, str):
        raise InputError(f"{name} must be a name; got {brief(repr(value))}: correct it")
    return value


def side(settings: Mapping[str, Any], name: str, default: int) -> int:
    """A side in pixels: a whole number, or a list of two equal ones."""
    value = settings.get(name, default)
    sides = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(sides) <= 2 or any(s != sides[0] for s in sides):
        raise InputError(f"expected square patches; got {name} {brief(repr(value))}")
    return whole({name: sides[0]}, name, default, most=MOST_PIXELS)


def pair(settings: Mapping[str, Any], name: str, default: int | tuple[int, int]) -> int | tuple[int, int]:
    """The size of an image in pixels: a side, or a list of height and width."""
    value = settings.get(name, default)
    both = list(value) if isinstance(value, list | tuple) else [value]
    if not 1 <= len(both) <= 2:
        raise InputError(f"{name} must be pixels, a side or [height, width]; got {brief(repr(value))}: correct it")
    height, width = (whole({name: s}, name, 1, most=MOST_PIXELS) for s in (both[0], both[-1]))
    return height if height == width else (height, width)


def mapping(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object; an empty one where the key is absent or null."""
    value = settings.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{name} must be an object; got {brief(repr(value))}: correct it")
    return value or {}


def check_keys(settings: Mapping[str, Any], *, fixed: Mapping[str, Any], read: Collection[str]) -> None:
    """Refuses what makes another network than the one implemented, and warns of keys nobody has heard of.

    fixed: keys that change the network, with the one value of each that is implemented; None stands for null, and for
           what is empty or false.
    read:  the keys that the family reads.

    Raises ValueError that lists every key of another value.
    """
    wrong = {k: settings[k] for k, v in fixed.items() if k in settings and not _same(settings[k], v)}
    if wrong:
        raise InputError(
            f"expected {', '.join(f'{k} {_shown(fixed[k])}' for k in wrong)}; got {brief(wrong)}: not implemented"
        )
    unknown = sorted(brief(k) for k in settings if k not in fixed and k not in read and k not in HARMLESS)
    if unknown:
        listed = ", ".join(unknown[:8]) + (" and more" if len(unknown) > 8 else "")
        warn(
            f"the config has settings that are not known and are ignored: {listed}; where one of them changes the "
            "network, the answers are wrong",
            UserWarning,
        )


def timm_arguments(
    settings: Mapping[str, Any],
    *,
    fixed: Mapping[str, Any],
    read: Collection[str],
    harmless: Collection[str],
    ours: Collection[str] = (),
) -> dict[str, Any]:
    """What a file of timm's says of a network: `model_args`, and the arguments that stand beside it.

    fixed, read: as `check_keys` takes them.
    harmless:    arguments that change nothing here.
    ours:        keys beside `model_args` that mean the file's own things there.

    A null is the default, as `timm.create_model` drops it. Raises ValueError for
    arguments that are not known or not implemented.
    """
    beside = {k: v for k, v in settings.items() if (k in fixed or k in read) and k not in ours}
    args = {**beside, **mapping(settings, "model_args")}
    args = {k: v for k, v in args.items() if v is not None}
    unheard = sorted(k for k in args if k not in fixed and k not in read and k not in harmless)
    if unheard:
        raise InputError(f"model_args {', '.join(map(brief, unheard))} may change the network and are not known")
    check_keys(args, fixed=fixed, read={*read, *harmless})
    return args


def input_size(settings: Mapping[str, Any]) -> int | tuple[int, int] | None:
    """The size of the images in timm's `pretrained_cfg`, or beside `architecture` in older files; None if not there.

    Raises ValueError for what is no [channels, height, width].
    """
    cfg = mapping(settings, "pretrained_cfg") or settings
    sizes = cfg.get("input_size")
    if sizes is None:
        return None
    if not isinstance(sizes, list | tuple) or len(sizes) != 3:
        raise InputError(f"expected input_size [channels, height, width]; got {brief(repr(sizes))}")
    return pair({"input_size": list(sizes[1:])}, "input_size", 224)


def _same(value: Any, wanted: Any) -> bool:
    if wanted is LAYER_NORMS:
        return value is None or value in LAYER_NORMS
    if wanted is None:
        return value is None or value is False or (isinstance(value, list | dict | str) and not value)
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(wanted, float | int) and isinstance(value, float | int):
        return math.isclose(value, wanted)
    return value == wanted


def _shown(value: Any) -> str:
    return (
        "null"
        if value is None or value is LAYER_NORMS
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
