//! weir-lab
fn main() {}
