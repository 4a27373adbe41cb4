"""Reconstruction: a document said again from its memory."""
