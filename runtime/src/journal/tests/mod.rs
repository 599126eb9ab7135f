//! The journal on a disk in memory.
