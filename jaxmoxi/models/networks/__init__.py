"""Networks, one file a family: a config, the parameters' names and shapes, and the pure forward pass."""
