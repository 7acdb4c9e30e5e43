"""Other libraries' conventions; optional, imported by no other room, each module loading what it is named after."""
