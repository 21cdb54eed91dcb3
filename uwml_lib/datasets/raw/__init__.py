"""Makers of the SCAN layout from the files that people have."""
