"""What building a pack costs, by stage, beside SDNQ over the same weights."""
