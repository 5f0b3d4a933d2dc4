"""MoXI: greedy insertion and deletion, Shapley values and pairwise interactions in a context, and curves."""
