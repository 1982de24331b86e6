//! weir-agent
