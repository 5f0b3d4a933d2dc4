"""What a trained P2P model answers: predictions at a certainty, and how good and how faithful they are."""
