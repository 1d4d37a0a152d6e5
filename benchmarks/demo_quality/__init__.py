"""How well the bundled model enlarges photos it never saw, beside what people would use instead."""
