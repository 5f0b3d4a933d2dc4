"""Photos from outside: which files are photos, reading them safely, and making upright 8-bit RGB of them."""
