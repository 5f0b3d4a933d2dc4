"""Games: what an image makes of a classifier, and how many coalitions are evaluated together."""
