"""Experiments of many runs: what to train, which notebooks to execute, which table and text to make."""
