//! `ferrovia`: the command line.
fn main() {}
