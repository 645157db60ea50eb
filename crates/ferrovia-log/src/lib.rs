//! Logs on disk: lines in compressed segments with a size budget, read back by time and followed.
