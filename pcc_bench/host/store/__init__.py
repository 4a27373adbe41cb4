"""A folder of memories that outlives a run: made once, read by every later run and process."""
