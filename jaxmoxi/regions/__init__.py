"""Players in pixel space: label maps, and the algorithms that make them."""
