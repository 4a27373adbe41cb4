"""Numbers of worked solutions."""
