"""Training of compressors against a frozen decoder."""
