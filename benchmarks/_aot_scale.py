"""What many images cost on TPUs, from the modelled seconds of `aot`. Chip-hours; nothing of it was run.

Assumed: the host keeps up; images are independent, so that k chips take a k-th of the hours, on one host or on many;
programs are compiled already; 196 players (14 x 14 tokens of a DeiT-Tiny), bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

IMAGES = (1_000, 50_000, 1_000_000)
FLIP = 32  # players of a group to the flip
EPOCH = 1_281_167  # ImageNet's training images
EVALUATIONS = 196 * 197 // 2  # the budget of a minimal group, and the pairs of full context


def seconds_per_image(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What is asked of an image, and its modelled seconds on one chip; only what the rows of that chip can tell."""
    found: dict[str, float] = {}
    alone = [row for row in rows if row["program"].startswith("insertion, DeiT-Tiny")]
    together = [row for row in rows if row["program"].startswith("greedy_images")]
    stages, images = (together, 64) if together else (alone, 1)
    if stages:
        flip = 0.0
        for row in stages:
            first, last = (int(x) for x in row["program"].split("players ")[1].split(",")[0].split(" to "))
            flip += row["modelled seconds"] * max(0, min(last, FLIP) - first + 1) / (last - first + 1)
        found[f"group to the flip ({FLIP} players)"] = flip / images
        found["full insertion order"] = sum(row["modelled seconds"] for row in stages) / images
    for tokens, name in ((105, "minimal group (19,306 evaluations at 105 tokens)"),
                         (197, "all pairs, full context (19,306 at 197 tokens)")):  # fmt: skip
        one = [r for r in rows if "four chips" not in r["program"]]
        row = next((r for r in one if r["program"].startswith(f"forward, DeiT-Tiny, {tokens} tokens")), None)
        if row is not None:
            count = int(row["program"].split(", ")[3].split(" ")[0])
            found[name] = row["modelled seconds"] / count * EVALUATIONS
    row = next((r for r in rows if r["program"].startswith("pairwise_interactions")), None)
    if row is not None:
        found["all pairs, self context"] = row["modelled seconds"]
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Chip-hours, as Markdown."""
    rows = [row for row in rows if "error" not in row]
    lines = [
        f"| chip | what | seconds an image | {' | '.join(f'{n:,} images' for n in IMAGES)} |",
        "|---" * (3 + len(IMAGES)) + "|",
    ]
    for chip in dict.fromkeys(row["chip"] for row in rows):
        own = [row for row in rows if row["chip"] == chip]
        for name, seconds in seconds_per_image(own).items():
            hours = " | ".join(f"{seconds * n / 3600:.3g} h" for n in IMAGES)
            lines.append(f"| {chip} | {name} | {seconds:.3g} | {hours} |")
        step = next((row for row in own if row["program"].startswith("p2p train_step")), None)
        if step is not None:
            seconds = step["modelled seconds"] / 64
            lines.append(f"| {chip} | P2P, an epoch of ImageNet ({EPOCH:,} images) | {seconds:.3g} | "
                         f"{seconds * EPOCH / 3600:.3g} h | | |")  # fmt: skip
    return "\n".join(lines)
