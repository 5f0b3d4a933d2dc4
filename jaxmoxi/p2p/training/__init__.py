"""Training of P2P: the loss, one step, the loop, and the folder that a run is kept in."""
