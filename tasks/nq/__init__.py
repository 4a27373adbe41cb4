"""Natural Questions with the passages that hold the answer."""
