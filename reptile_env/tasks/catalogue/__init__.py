"""What tasks there are, as plain data; nothing here imports torch or reads a file."""
