"""A conversation that is compressed again as it goes on."""
