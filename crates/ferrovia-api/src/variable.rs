//! Variables of an instance, and shared ones of an environment.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A variable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Variable {
    /// Letters, digits and underscores, not beginning with a digit.
    pub key: String,
    /// As it was given, references unresolved; null when it is sealed.
    pub value: Option<String>,
    /// Never readable again.
    pub sealed: bool,
    /// Marked as not secret: may be a build argument.
    pub public: bool,
    /// When it was last set.
    pub updated_at: Timestamp,
}

/// All variables, by key. Applied by the next deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VariableList {
    /// The variables.
    pub items: Vec<Variable>,
}

/// A change of variables, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VariablePatch {
    /// Set, new or in place of an older one.
    #[schema(max_items = 1000)]
    pub set: Vec<VariableSetting>,
    /// Taken away; one that is not there is fine.
    #[schema(max_items = 1000)]
    pub unset: Vec<String>,
}

/// A variable to be set.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VariableSetting {
    /// Letters, digits and underscores, not beginning with a digit.
    #[schema(
        pattern = "^[A-Za-z_][A-Za-z0-9_]*$",
        max_length = 256,
        example = "DATABASE_URL"
    )]
    pub key: String,
    /// Taken literally but for references: `${{KEY}}`, `${{Service.KEY}}`, `${{shared.KEY}}`. No NUL.
    #[schema(max_length = 130814)]
    pub value: String,
    /// Never readable again, through any interface; cannot be taken back.
    #[serde(default)]
    pub sealed: bool,
    /// Marked as not secret: may be a build argument.
    #[serde(default)]
    pub public: bool,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variable")
            .field("key", &self.key)
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for VariableSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VariableSetting")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
