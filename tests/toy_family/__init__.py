"""A second network family, as small as one can be: two linear layers. Shows what a family takes."""
