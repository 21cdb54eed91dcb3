"""The pages that read offline: executed notebooks, tables, runs, and the weight explorer."""
