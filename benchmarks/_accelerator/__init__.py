"""The parts of `benchmarks/accelerator.py`.

Importing this package puts stand-ins in the place of packages that are missing, before any part imports jaxmoxi.
"""

import time

from _accelerator.stand_ins import install

STARTED = time.monotonic()  # the budget of time counts from here: importing JAX takes seconds
STOOD_IN = install()
