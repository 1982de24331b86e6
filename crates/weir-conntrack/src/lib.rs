//! weir-conntrack
