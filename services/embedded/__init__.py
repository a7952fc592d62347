"""A broker and a store as child processes on loopback, from Python packages alone."""
