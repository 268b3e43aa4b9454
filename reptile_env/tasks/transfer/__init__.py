"""The transfer family: 64 small trained networks of eight kinds, 48 to train agents on and 16 to score them on."""
