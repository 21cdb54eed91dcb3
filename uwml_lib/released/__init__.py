"""All that exists only for the release of the authors: its flags, its checkpoints, the published numbers."""
