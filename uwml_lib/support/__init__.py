"""What every other room needs and nothing of the method: paths, errors, files, progress."""
