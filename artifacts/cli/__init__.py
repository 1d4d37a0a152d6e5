"""What both command lines share: how a command ends, and options that several commands have."""
