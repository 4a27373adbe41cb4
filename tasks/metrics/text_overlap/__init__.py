"""BLEU and ROUGE-L of a reconstructed text."""
