"""The commands of `uwml`, as plain functions."""
