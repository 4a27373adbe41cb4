"""Completion: perplexity of how a document goes on."""
