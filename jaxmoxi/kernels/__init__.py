"""What a backend needs written specially, each beside its plain form: attention, the exact GELU, tokens picked out."""
