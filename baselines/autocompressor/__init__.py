"""AutoCompressor (Chevalier et al., EMNLP 2023) and its relative RMT."""
