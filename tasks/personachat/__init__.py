"""PersonaChat."""
