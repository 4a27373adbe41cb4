"""SST-2: sentiment of film reviews."""
