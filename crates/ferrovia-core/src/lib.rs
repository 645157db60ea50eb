//! The domain of Ferrovia: pure data and pure decisions.
//!
//! Deliberately absent: input and output, the clock, tokio, randomness. What depends on time takes `now` as an
//! argument; what needs an identifier takes it from its caller. So every decision the platform makes can be
//! tested without starting anything.

pub mod bases;
pub mod cutover;
pub mod detect;
pub mod dockerfile;
pub mod error;
pub mod host;
pub mod id;
pub mod image_reference;
pub mod injected;
pub mod intent;
pub mod name;
pub mod network;
pub mod observation;
pub mod outcome;
pub mod permission;
pub mod plan;
pub mod secret;
pub mod settings;
pub mod settings_rules;
pub mod table;
pub mod tree;
pub mod variable;
pub mod versions;
pub mod workload;
