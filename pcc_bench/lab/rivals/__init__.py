"""The baselines of the lab: ICAE, COCOM, AutoCompressor and a token classifier, trained on its decoder and its text."""
