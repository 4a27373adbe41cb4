"""In-context learning: GSM8K, SST-2 and WSC share this code."""
