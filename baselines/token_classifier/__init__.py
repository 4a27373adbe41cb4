"""Any token classification model as a compressor."""
