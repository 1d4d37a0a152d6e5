"""One page that shows a pack: what bits went where, what they cost, what they left."""
