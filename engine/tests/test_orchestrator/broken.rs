//! A container engine in memory that fails at every call, and engines that die there.
