"""COCO-10 from the command line: `python -m jaxmoxi.p2p.data.make_coco10 --help`. See `coco` for what it makes."""

import tyro

from jaxmoxi.p2p.data.coco import build_coco10


def main() -> None:
    """Runs `build_coco10` with the arguments given, and says what was passed over."""
    skipped = tyro.cli(build_coco10)
    print("test images passed over for their object's share:", skipped)


if __name__ == "__main__":
    main()
