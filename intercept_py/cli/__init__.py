"""The command line: one file a command, every use of rich in `render`."""
