"""SET-SUM: why the regions that are best one by one are not the best group.

    pip install 'jaxmoxi[digits]'
    python examples/set_sum.py --out set_sum                     # minutes on one core; --digits drawn needs no package

An image is four handwritten digits, 2 x 2, and its class the sum of the *distinct* ones: 3, 3, 5, 7 make 15. A small
network learns it. Then three methods rank the four digits, and insert them one after the other into a black image:

    MoXI      the digit that adds most to those that are there   jm.greedy_insertion
    MoXI(-)   by what each digit tells alone                     jm.single_player_order
    Shapley   by Shapley values, of all 16 coalitions            jm.interactions.exact(index="SV")

Two copies of a digit tell the same alone, so MoXI(-) takes both; together the second adds nothing. The source is
section 4.1 of Sumiyasu, Kawamoto, Kera, "Identifying Important Group of Pixels using Interactions", CVPR 2024.

Writes into --out: set_sum.png, set_sum.md (tables) and set_sum.json (all numbers).
"""

import json
import time
from functools import partial, reduce
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image, ImageDraw, ImageFont

import jaxmoxi as jm

METHODS = {"MoXI": "#d0021b", "MoXI(-)": "#ff7f0e", "Shapley": "#000080"}
# Which of a composite's digits are the same; in how many of 10,000 composites of independent digits 0 to 9 they are so
# (the other 10 have four alike), and in how many of 6,561 of digits 1 to 9.
KINDS = {
    "four distinct": ((0, 1, 2, 3), 5040, 3024),
    "one pair": ((0, 0, 1, 2), 4320, 3024),
    "two pairs": ((0, 0, 1, 1), 270, 216),
    "three alike": ((0, 0, 0, 1), 360, 288),
}
MIX, NO_ZERO = "a digit repeats", ", no 0"  # the last three as often as chance makes them; composites without a 0
PATTERNS = np.array([pattern for pattern, *_ in KINDS.values()])
COALITIONS = (np.arange(16)[:, None] >> np.arange(4)) & 1 == 1  # bool[16, 4], which digits are visible
REGIONS = jm.grid_regions(16, 16, rows=2, cols=2)
HELD_OUT = 50  # images of each digit that no network is trained on


def handwritten():
    """scikit-learn's images of the digits 0 to 9: ten arrays [N, 8, 8] in [0, 1]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SystemExit(
            "the handwritten digits are scikit-learn's: pip install 'jaxmoxi[digits]', or --digits drawn"
        ) from error
    images, which = map(np.asarray, load_digits(return_X_y=True))
    return [images[which == digit].reshape(-1, 8, 8).astype(np.float32) / 16 for digit in range(10)]


def drawn(count=174):
    """Digits of a font in other sizes, places and angles, which need no package: ten arrays [count, 8, 8]."""
    rng = np.random.default_rng(0)

    def draw(digit):
        big = Image.new("L", (32, 32))
        place = tuple(16 + rng.uniform(-2, 2, 2))
        ImageDraw.Draw(big).text(place, str(digit), 255, ImageFont.load_default(rng.uniform(30, 38)), anchor="mm")
        small = big.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR).resize((8, 8), Image.Resampling.BOX)
        return np.asarray(small, np.float32) / 255

    return [np.stack([draw(digit) for _ in range(count)]) for digit in range(10)]


def split(images, seed):
    """Images to train on float32[10, M, 8, 8] and others to test on float32[10, 50, 8, 8]; none is in both."""
    rng = np.random.default_rng(seed)
    mixed = [rng.permutation(each) for each in images]
    least = min(len(each) for each in mixed)
    return np.stack([each[HELD_OUT:least] for each in mixed]), np.stack([each[:HELD_OUT] for each in mixed])


def compose(key, digits, kind):
    """A composite of four different images of a kind (a row of PATTERNS): float32[16, 16, 1], and its digits int[4]."""
    which, place, first = jax.random.split(key, 3)
    shown = jax.random.permutation(which, 10)[jax.random.permutation(place, jnp.asarray(PATTERNS)[kind])]
    count = digits.shape[1]
    parts = digits[shown, (jax.random.randint(first, (), 0, count) + jnp.arange(4)) % count]
    return parts.reshape(2, 2, 8, 8).swapaxes(1, 2).reshape(16, 16, 1), shown


def set_sum(shown, visible):
    """The sum of the distinct digits among those that are visible, 0 to 30; int[..., 4], bool[..., 4] -> int[...]."""
    there = ((shown[..., None] == np.arange(10)) & visible[..., None]).any(-2)
    return (there * np.arange(10)).sum(-1)


class Net(nnx.Module):
    """The same layers read each quadrant; the strongest answer of any, feature by feature, goes to the head."""

    def __init__(self, rngs):
        self.strokes, self.digit = nnx.Linear(25, 24, rngs=rngs), nnx.Linear(4 * 24, 96, rngs=rngs)
        self.head, self.out = nnx.Linear(96, 192, rngs=rngs), nnx.Linear(192, 31, rngs=rngs)

    def __call__(self, images):
        x = images.reshape(len(images), 2, 8, 2, 8).swapaxes(2, 3).reshape(len(images), 4, 8, 8)
        x = jnp.stack([x[..., i : i + 4, j : j + 4] for i in range(5) for j in range(5)], -1)  # 5 x 5 pixels, shifted
        x = nnx.relu(self.strokes(x)).reshape(len(images), 4, 2, 2, 2, 2, 24).max((3, 5))
        x = nnx.relu(self.digit(x.reshape(len(images), 4, 4 * 24))).max(1)
        return self.out(nnx.relu(self.head(x)))


def train(digits, seed, steps, batch_size=128):
    """Logits of images [B, 16, 16, 1] -> [B, 31], a pure function with its weights as leaves.

    In training, too, digits are hidden: a black quadrant is no digit, and the class is the sum of the distinct digits
    that are visible. So the network has seen what the methods ask it.
    """
    structure, weights = nnx.split(Net(nnx.Rngs(seed)))
    logits = jax.tree_util.Partial(lambda weights, images: nnx.merge(structure, weights)(images))
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    @jax.jit
    def step(weights, memory, digits, key):
        keys = jax.random.split(key, 4)
        kinds = jax.random.randint(keys[0], (batch_size,), 0, len(PATTERNS))
        images, shown = jax.vmap(compose, (0, None, 0))(jax.random.split(keys[1], batch_size), digits, kinds)
        share = 1.5 * jax.random.uniform(keys[2], (batch_size, 1))  # a third of the composites are whole
        visible = jax.random.uniform(keys[3], (batch_size, 4)) < share
        images, labels = images * visible[:, REGIONS, None], set_sum(shown, visible)

        def loss(weights):
            return optax.softmax_cross_entropy_with_integer_labels(logits(weights, images), labels).mean()

        updates, memory = optimizer.update(jax.grad(loss)(weights), memory)
        return optax.apply_updates(weights, updates), memory

    memory = optimizer.init(weights)
    for key in jax.random.split(jax.random.key(seed), steps):
        weights, memory = step(weights, memory, digits, key)
    return jax.tree_util.Partial(logits.func, weights)


def explain(logits, image, target):
    """The orders of METHODS, int32[3, 4], and what the network answers along them (`Readout`, arrays [3, 5]).

    The payoff is the log-odds of `target`, the class of the whole composite; hidden digits are black.
    """
    v = jm.pixel_value_fn(logits, image, target, REGIONS)
    shapley = jm.interactions.exact(v, 4, index="SV", order=1).first_order()
    orders = [jm.greedy_insertion(v, 4).order, jm.single_player_order(v, 4), jnp.argsort(-shapley)]
    orders = jnp.stack(orders).astype(jnp.int32)
    return orders, jm.curve_readouts(v, orders)


@partial(jax.jit, static_argnames="count")
def measure(key, logits, digits, kind, *, count):
    """`count` composites of a kind, made of `digits`, and how they are explained: arrays [count, ...] by name."""

    def one(key):
        image, shown = compose(key, digits, kind)
        sums = set_sum(shown, COALITIONS)  # what is true of each coalition, int[16]; the last is the whole composite
        says = logits(image * COALITIONS[:, REGIONS, None]).argmax(-1)
        orders, along = explain(logits, image, sums[-1])
        inserted = jnp.argsort(orders)[:, None] < jnp.arange(5)[:, None]  # bool[3, 5, 4]: visible at each size
        says_along = says[inserted @ (1 << np.arange(4))]
        return {"image": image, "shown": shown, "inserted": inserted, "says": says_along, "reads": says == sums,
                "confidence": along.probabilities, "accuracy": along.leads, "enough": sums == sums[-1]}  # fmt: skip

    return jax.vmap(one)(jax.random.split(key, count))


def summary(found):
    """Means over the composites, at 0, 25, ... 100 % of the area: float[5] by name, or by method and name.

    "possible" is the share of the composites that have a group of this size with the whole composite's sum, which no
    order can be better than; "reads" how often the network answers the sum of what is visible, over all coalitions.
    """

    def mean(values):
        return np.mean(values, axis=0, dtype=float).round(5).tolist()

    of_size = [COALITIONS.sum(1) == k for k in range(5)]
    methods = {m: {x: mean(found[x][:, i]) for x in ("confidence", "accuracy")} for i, m in enumerate(METHODS)}
    possible = [mean(found["enough"][:, which].any(1)) for which in of_size]
    return {**methods, "possible": possible, "reads": [mean(found["reads"][:, which].mean(1)) for which in of_size]}


def summaries(found):
    """A summary of each kind, and of its composites without a 0."""
    results = {}
    for kind, each in found.items():
        rest = (each["shown"] > 0).all(1)
        results[kind] = summary(each)
        results[kind + NO_ZERO] = summary({name: array[rest] for name, array in each.items()})
    return results


def curves(results, kind, *names):
    """One line's numbers in %, float[networks, 5]; of MIX the mean over the kinds, weighted by how often they occur."""
    if not kind.startswith(MIX):
        return 100 * np.array([reduce(dict.__getitem__, names, result[kind]) for result in results])
    rest = kind.removeprefix(MIX)
    kinds = {name: weights for name, (_, *weights) in KINDS.items() if name != "four distinct"}
    weights = [each[rest == NO_ZERO] for each in kinds.values()]
    return np.average([curves(results, name + rest, *names) for name in kinds], axis=0, weights=weights)


def tables(results):
    """The tables as Markdown: what each order reaches, how far MoXI is ahead, and whether the network can be asked."""
    names = ("confidence", "accuracy")
    heads = [f"{name} {share} %" for name in names for share in (25, 50, 75, 100)]
    lines = [f"| digits | order | {' | '.join(heads)} |", "| --- | --- " + "| ---: " * 8 + "|"]
    for kind in (MIX, MIX + NO_ZERO, *KINDS):
        best = curves(results, kind, "possible").mean(0)[1:]
        for method in (*METHODS, "the best there could be"):
            means = [curves(results, kind, method, x).mean(0)[1:] if method in METHODS else best for x in names]
            lines.append(f"| {kind} | {method} | {' | '.join(f'{x:.1f}' for x in np.concatenate(means))} |")
    lines += ["", "| MoXI ahead of MoXI(-), points of confidence (each network) | 25 % | 50 % | 75 % |"]
    lines += ["| --- " + "| ---: " * 3 + "|"]
    for kind in (MIX, MIX + NO_ZERO, *KINDS):
        ahead = curves(results, kind, "MoXI", "confidence") - curves(results, kind, "MoXI(-)", "confidence")
        cells = [f"{x.mean():+.1f} ({', '.join(f'{one:+.1f}' for one in x)})" for x in ahead[:, 1:4].T]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += ["", "| the network answers the sum of the visible digits, % | one | two | three | four |"]
    lines += ["| --- " + "| ---: " * 4 + "|"]
    for kind in KINDS:
        lines.append(f"| {kind} | {' | '.join(f'{x:.1f}' for x in curves(results, kind, 'reads').mean(0)[1:])} |")
    return "\n".join(lines) + "\n"


CAPTION = (
    "The class of an image is the sum of its distinct digits: a second copy adds nothing. Each method puts the four "
    "digits in an order, and inserts them.\n"
    "Above: an image each of two kinds, of those where MoXI and MoXI(-) differ. What is visible at each share of the "
    "area, and the network's answer to it, green where it\n"
    "is the whole image's class. MoXI(-) ranks digits by what each tells alone, which is about the same for both "
    "copies. MoXI takes the digit that adds most to those there.\n"
    "Below: means over all test images of a kind; bars are standard deviations between networks. The grey line is an "
    "order that knows the digits (a 0 adds nothing either)."
)


def draw(results, examples):
    """Two composites as each method inserts them, above the curves of every kind."""
    figure = Figure(figsize=(12, 10), dpi=120, layout=ConstrainedLayoutEngine(h_pad=0.08))
    parts = figure.add_gridspec(2, 2, height_ratios=(1.2, 1))
    below = figure.add_subfigure(parts[1, :])
    for column, (kind, size) in enumerate({"two pairs": 2, "one pair": 3}.items()):  # and where the methods differ
        part = figure.add_subfigure(parts[0, column])
        found = examples[kind]
        right = found["accuracy"]
        differs = right[:, 0, size] & ~right[:, 1, size] & right[:, 0, 4] & (found["shown"] > 0).all(1)
        at = int(np.argmax(differs))
        distinct = np.unique(found["shown"][at])
        digits = ", ".join(map(str, np.sort(found["shown"][at])))
        part.suptitle(f"{kind}: {digits}    class: {' + '.join(map(str, distinct))} = {distinct.sum()}", fontsize=12)
        grid = part.subplots(3, 4)
        for i, (method, colour) in enumerate(METHODS.items()):
            grid[i, 0].set_ylabel(method, color=colour, fontsize=12, weight="bold")
            for k in range(1, 5):
                axes, says = grid[i, k - 1], found["says"][at, i, k]
                ink = "#11772d" if says == distinct.sum() else "#555555"
                picture = np.where(found["inserted"][at, i, k][REGIONS], found["image"][at, ..., 0], 0)
                picture = np.pad(picture.reshape(2, 8, 2, 8), ((0, 0), (1, 1)) * 2).reshape(20, 20)
                axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
                axes.axhline(9.5, color="#777777", lw=0.8)
                axes.axvline(9.5, color="#777777", lw=0.8)
                axes.set(xticks=[], yticks=[])
                axes.set_xlabel(f"answers {says}", color=ink, fontsize=10)
                axes.spines[:].set(color=ink, linewidth=2)
                if i == 0:
                    axes.set_title(f"{25 * k} % visible", fontsize=10)
    for axes, (kind, (pattern, *_)) in zip(below.subplots(1, 4, sharey=True), KINDS.items(), strict=True):
        shares = np.linspace(0, 100, 5)
        axes.plot(shares, curves(results, kind, "possible").mean(0), "--", color="#999999", label="best there could be")
        for marker, (method, colour) in zip("os^", METHODS.items(), strict=True):
            y = curves(results, kind, method, "confidence")
            axes.errorbar(shares, y.mean(0), y.std(0), color=colour, marker=marker, capsize=3, label=method, alpha=0.8)
        axes.set_title(f"{kind}, as {', '.join(str((3, 5, 7, 8)[i]) for i in pattern)}", fontsize=11)
        axes.set(xlabel="% of the area visible", xticks=shares, ylim=(-3, 103))
        axes.grid(alpha=0.3)
        if kind == "four distinct":
            axes.set_ylabel("confidence in the image's class, %")
            axes.legend(loc="upper left")
    figure.supxlabel(CAPTION, fontsize=9, x=0.015, ha="left")
    return figure


def main(
    seeds: tuple[int, ...] = (0, 1, 2),
    steps: int = 6000,
    count: int = 250,
    digits: Literal["handwritten", "drawn"] = "handwritten",
    out: Path = Path("set_sum"),
) -> None:
    """SET-SUM: MoXI, MoXI(-) and Shapley values where a group's value is not the sum of its members'.

    Args:
        seeds: One network each, with its own split of the digit images, and its own test composites.
        steps: Of training, of 128 composites each.
        count: Test composites of each kind (none or one pair, two pairs, three alike) and network.
        digits: scikit-learn's (`pip install 'jaxmoxi[digits]'`), or drawn with a font.
        out: The folder for set_sum.png, set_sum.md and set_sum.json.
    """
    if not seeds or steps < 1 or count < 1:
        raise SystemExit("expected at least one seed, one step and one composite")
    start = time.perf_counter()
    images = handwritten() if digits == "handwritten" else drawn()
    results, examples = [], {}
    for seed in seeds:
        learned, held_out = split(images, seed)
        logits = train(learned, seed, steps)
        keys = jax.random.split(jax.random.key(seed + 2**31), len(KINDS))
        found = jax.device_get(
            {name: measure(keys[i], logits, held_out, i, count=count) for i, name in enumerate(KINDS)}
        )
        results.append(summaries(found))
        examples = examples or found
        print(f"network {seed}: {time.perf_counter() - start:.0f} s")
    record = {"seeds": seeds, "steps": steps, "count": count, "digits": digits, "results": results}
    out.mkdir(parents=True, exist_ok=True)
    record["seconds"] = round(time.perf_counter() - start)
    (out / "set_sum.json").write_text(json.dumps(record) + "\n")
    (out / "set_sum.md").write_text(tables(results))
    draw(results, examples).savefig(out / "set_sum.png")
    print(tables(results))
    print(f"wrote set_sum.png, set_sum.md, set_sum.json into {out}")


if __name__ == "__main__":
    tyro.cli(main)
