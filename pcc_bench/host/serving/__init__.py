"""Memories read by a server: what goes over the wire to vLLM, and what comes back."""
