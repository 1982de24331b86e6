//! Names of well-known ports.
