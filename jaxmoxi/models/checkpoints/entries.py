"""Which state dict of a PyTorch checkpoint holds the weights: the one asked for, else the one that it must be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxmoxi.models.checkpoints.torch_pickle import SAVE, Foreign, Refusal, Tensor, brief

# What training checkpoints call their state dicts; the first found counts. The last ones are averages of the weights.
_NAMES = ("state_dict", "model", "state_dict_ema", "model_ema", "model_state_dict", "net", "network", "weights")
_NAMES += ("module", "model_state", "net_state_dict", "network_state_dict", "model_weights", "params")
_NAMES += ("ema", "ema_state_dict", "ema_model", "model_ema_state_dict", "params_ema", "averaged_model", "shadow")

# What stands beside the weights and may hold tensors of its own.
_BESIDE = re.compile(
    r"(opt(im\w*)?|\w*optimi[sz]er\w*|\w*sched\w*|\w*scaler\w*|amp\w*|\w*rng\w*|\w*random\w*|criterion\w*|\w*loss\w*|"
    r"\w*metric\w*|callbacks?|loops|hyper_parameters|args|config|cfg|history|logs?|results?|best_\w+)$",
    re.IGNORECASE,
)


class Taken(NamedTuple):
    """The tensors of a checkpoint that were taken by name, where they stood, and what other weights there are.

    entry:  the keys that lead to them, joined by dots; "" where the file holds nothing else.
    others: entries that hold weights as well, in the same form.
    """

    tensors: dict[str, Tensor]
    entry: str
    others: tuple[str, ...] = ()


def take(tree: Any, entry: str | None, file: str) -> Taken:
    """The state dict in what a checkpoint describes.

    entry: the keys that lead to it, joined by dots, or the beginning of the names of its tensors; None searches for it.
    file:  the name of the file, for the lines that a refusal tells to run.

    Raises `Refusal` where there is none, where several are possible, and for a module that was pickled whole.
    """
    if entry is None or type(tree) is not dict:
        return _search(tree, "", file)
    found = _walk(tree, entry)
    if type(found) is list and any(type(item) is Tensor for item in found):
        raise Refusal(_describe_list(found, entry))
    if type(found) is Foreign and not found.tensor:
        raise Refusal(_describe_object(found, entry, file))
    if not _holds(found):
        raise Refusal(
            f"has no entry {brief(repr(entry))} that holds tensors; found {_listed(tree)}: name another entry"
        )
    if tensors := _tensors(found):
        return Taken(tensors, entry)
    return _search(found, entry, file)


def _search(tree: Any, path: str, file: str) -> Taken:
    if type(tree) is Foreign and not tree.tensor:
        raise Refusal(_describe_object(tree, path, file))
    if type(tree) is list and len(tree) > 1 and all(type(item) is Tensor for item in tree):
        raise Refusal(_describe_list(tree, path))
    if type(tree) is not dict:
        kind = "a single tensor" if type(tree) in (Tensor, Foreign) else type(tree).__name__
        raise Refusal(f"holds {kind}, expected a state dict: a mapping of names to tensors; {SAVE}")
    named = [name for name in _NAMES if _holds(tree.get(name))]
    if named and path.count(".") < len(_NAMES):  # a mapping may hold itself
        found = _search(tree[named[0]], _join(path, named[0]), file)
        return found._replace(others=(*(_join(path, name) for name in named[1:]), *found.others))
    tensors = _tensors(tree)
    if any(tensor.shape for tensor in tensors.values()):  # numbers alone, such as an accuracy, are no weights
        return Taken(tensors, path)
    inner = [name for name, value in tree.items() if _holds(value) and not _BESIDE.match(name)]
    if len(inner) == 1 and path.count(".") < len(_NAMES):
        return _search(tree[inner[0]], _join(path, inner[0]), file)
    if tensors:
        return Taken(tensors, path)
    if len(inner) > 1:
        raise Refusal(
            f"holds tensors under {', '.join(map(brief, inner[:5]))}, and nothing tells which are the network's: name "
            f'one with entry="{brief(_join(path, inner[0]))}"'
        )
    for name in _NAMES:
        if type(tree.get(name)) is Foreign:
            raise Refusal(_describe_object(tree[name], _join(path, name), file))
    for name, value in tree.items():
        if type(value) is Foreign and "multiarray._reconstruct" in value.name:
            raise Refusal(f"holds the NumPy array {brief(name)} and no tensors; make tensors of its arrays and {SAVE}")
        for inner, part in ((name, value), *(value.items() if type(value) is dict else ())):
            if type(part) is list and any(type(item) is Tensor for item in part):
                raise Refusal(_describe_list(part, _join(path, name if part is value else f"{name}.{inner}")))
    raise Refusal(f"holds no tensors, expected a mapping of names to tensors; found {_listed(tree)}; {SAVE}")


def _walk(tree: dict[str, Any], entry: str) -> Any:
    """What an entry stands for; None for nothing. Keys may have dots themselves."""
    if entry in tree:
        return tree[entry]
    for at in [i for i, character in enumerate(entry) if character == "."]:
        inner = tree.get(entry[:at])
        if type(inner) is dict and (found := _walk(inner, entry[at + 1 :])) is not None:
            return found
    return under(tree, f"{entry}.") or None


def under(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What goes by names that begin with `prefix`, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _tensors(tree: Any) -> dict[str, Tensor]:
    """The tensors of a mapping. Raises `Refusal` for one of a kind that is not read."""
    if type(tree) is not dict:
        return {}
    for name, value in tree.items():
        if type(value) is Foreign and value.tensor:
            raise Refusal(
                f"holds the tensor {brief(name)} as {value.name}, which is not a plain tensor and is not read (it may "
                f"be quantised, sparse, distributed or of 8 bits); convert the model to float32 on the CPU and {SAVE}"
            )
    return {n: t for n, t in tree.items() if type(t) is Tensor}


def _holds(tree: Any) -> bool:
    """Whether there are tensors in a mapping, or in mappings in it."""
    if type(tree) is not dict:
        return False
    waiting, seen = [tree], {id(tree)}
    while waiting:
        for value in waiting.pop().values():
            if type(value) is Tensor or (type(value) is Foreign and value.tensor):
                return True
            if type(value) is dict and id(value) not in seen:
                seen.add(id(value))
                waiting.append(value)
    return False


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _listed(tree: dict[str, Any]) -> str:
    names = sorted(tree, key=lambda name: not _holds(tree[name]))  # a stable order: what holds tensors first
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(brief(name) for name in names[:8]) or "nothing") + more


def _describe_list(tensors: list[Any], entry: str) -> str:
    where = f" under {brief(entry)}" if entry else ""
    return (
        f"holds a list of {len(tensors)} tensors without names{where}, as some trainers keep averages of weights; "
        f"which belongs where is not told: copy them into the model (ema.copy_to(model.parameters())) and {SAVE}"
    )


def _describe_object(found: Foreign, entry: str, file: str) -> str:
    key = "".join(f'["{brief(part)}"]' for part in entry.split(".")) if entry else ""
    where = f" under {brief(entry)}" if entry else ""
    return (
        f"holds a whole pickled object of the class {found.name}{where}, not a state dict; only its own code can build "
        f'it. If you trust the file, these two lines export its weights: model = torch.load("{file}", '
        f'weights_only=False){key}   and   torch.save(model.state_dict(), "{Path(file).stem}_weights.pt")'
    )
