"""Networks, one file a family: a config, the parameters' names and shapes, and the pure forward pass.

A file that checkpoint folders are read for registers its family at its end; no other file names it. The other files
hold P2P's selectors and small classifier, and what several networks share.
"""

import importlib
import pkgutil

from jaxmoxi.models.networks.registry import Family, registered


def families() -> tuple[Family, ...]:
    """All families of networks that checkpoint folders are read for. Imports every file of this folder."""
    for file in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{file.name}")
    return registered()
