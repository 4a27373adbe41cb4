"""GSM8K: worked arithmetic problems."""
