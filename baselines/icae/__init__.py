"""ICAE, the In-context Autoencoder (Ge et al., ICLR 2024)."""
