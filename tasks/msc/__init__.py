"""Multi-Session Chat."""
