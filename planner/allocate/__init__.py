"""Where the bits go: VaSMP, VaTMP, the bit grid."""
