//! What the replicas do: seen through the engine, probed, told to control and edge, and stopped when they may not be
//! started again. Works from the last good table, with control and database dead.

mod due;
mod keeper;
mod record;

pub use keeper::{Keeper, Parts};
pub use record::Record;
