"""What learning wins, method by method."""
