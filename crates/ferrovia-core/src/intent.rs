//! Intent: one row per instance, the only thing that says what should run.

use serde::{Deserialize, Serialize};

use crate::id::DeploymentId;

/// What should run of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The deployment that should run; `None` before the first and after `down`.
    pub target: Option<DeploymentId>,
    /// Copies of it.
    pub replicas: u32,
    /// Grows with every `restart`: replicas of a smaller nonce are replaced.
    pub restart_nonce: i64,
    /// Put to sleep: no replica runs until a request comes.
    pub asleep: bool,
    /// An operator holds it: reconcilers keep off.
    pub held: bool,
    /// Grows with every change of this row.
    pub generation: i64,
}
