"""LLMLingua-2 (Pan et al., ACL 2024 Findings)."""
