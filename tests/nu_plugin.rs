//! End to end with the real shell.
