"""Checkpoints: from files of any make to tensors by name, and from these to a `Classifier`."""
