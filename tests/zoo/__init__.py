"""Every architecture of the installed transformers, tiny, put through the handler: `make zoo` prints the table."""
