"""A page with a slider over every image of a batch: before and after."""
