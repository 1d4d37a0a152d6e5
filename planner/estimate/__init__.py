"""What a build will cost and give, from the configuration alone."""
