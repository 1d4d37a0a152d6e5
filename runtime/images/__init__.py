"""Images: files of many kinds in and out, colours, and batches of them."""
