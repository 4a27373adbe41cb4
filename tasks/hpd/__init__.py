"""Role play: perplexity and choice of a role's response, for Harry Potter Dialogue, MSC and PersonaChat."""
