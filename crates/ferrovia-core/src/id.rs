//! Identifiers: UUIDs (version 7, made by the caller) that know what they identify.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// What an [`Id`] identifies; the name stands in error messages.
pub trait Kind {
    /// The word of the product's vocabulary, in lower case.
    const NAME: &'static str;
}

/// An identifier of one `K`. Two kinds never compare and never mix.
pub struct Id<K>(Uuid, PhantomData<fn() -> K>);

/// Digits of a short identifier: the last ones, since the first of a version 7 UUID are the same for a minute.
pub const SHORT_DIGITS: usize = 12;

impl<K> Id<K> {
    /// Wraps a UUID that the caller generated or read.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }

    /// The UUID itself.
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The last twelve hexadecimal digits, for names that people read.
    pub fn short(self) -> String {
        let full = self.0.simple().to_string();
        full[full.len() - SHORT_DIGITS..].to_owned()
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not an identifier of the wanted kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a {kind} id; an id looks like `0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e`")]
pub struct ParseIdError {
    /// What was wanted.
    pub kind: &'static str,
    /// What was given, at most 64 characters of it.
    pub text: String,
}

impl<K: Kind> FromStr for Id<K> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text)
            .map(Self::from_uuid)
            .map_err(|_| ParseIdError {
                kind: K::NAME,
                text: text.chars().take(64).collect(),
            })
    }
}
impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
impl<'de, K> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Uuid::deserialize(deserializer).map(Self::from_uuid)
    }
}

/// The kinds of things that have identifiers.
pub mod kind {
    use super::Kind;

    /// Owns projects.
    pub enum Team {}
    /// A set of services that belong together.
    pub enum Project {}
    /// A full copy of a project's services with its own network and variables.
    pub enum Environment {}
    /// One deployable thing of a project.
    pub enum Service {}
    /// A service in an environment.
    pub enum Instance {}
    /// Source tree, plan and base images turned into an image.
    pub enum Build {}
    /// One immutable attempt to run an instance.
    pub enum Deployment {}
    /// One running copy of a deployment.
    pub enum Replica {}
    /// Data that outlives deployments.
    pub enum Volume {}
    /// A host name that leads to an instance.
    pub enum Domain {}
    /// A credential of the API.
    pub enum Token {}

    impl Kind for Team {
        const NAME: &'static str = "team";
    }
    impl Kind for Project {
        const NAME: &'static str = "project";
    }
    impl Kind for Environment {
        const NAME: &'static str = "environment";
    }
    impl Kind for Service {
        const NAME: &'static str = "service";
    }
    impl Kind for Instance {
        const NAME: &'static str = "instance";
    }
    impl Kind for Build {
        const NAME: &'static str = "build";
    }
    impl Kind for Deployment {
        const NAME: &'static str = "deployment";
    }
    impl Kind for Replica {
        const NAME: &'static str = "replica";
    }
    impl Kind for Volume {
        const NAME: &'static str = "volume";
    }
    impl Kind for Domain {
        const NAME: &'static str = "domain";
    }
    impl Kind for Token {
        const NAME: &'static str = "token";
    }
}

/// Identifies a team.
pub type TeamId = Id<kind::Team>;
/// Identifies a project.
pub type ProjectId = Id<kind::Project>;
/// Identifies an environment.
pub type EnvironmentId = Id<kind::Environment>;
/// Identifies a service.
pub type ServiceId = Id<kind::Service>;
/// Identifies an instance.
pub type InstanceId = Id<kind::Instance>;
/// Identifies a build.
pub type BuildId = Id<kind::Build>;
/// Identifies a deployment.
pub type DeploymentId = Id<kind::Deployment>;
/// Identifies a replica.
pub type ReplicaId = Id<kind::Replica>;
/// Identifies a volume.
pub type VolumeId = Id<kind::Volume>;
/// Identifies a domain.
pub type DomainId = Id<kind::Domain>;
/// Identifies an API token.
pub type TokenId = Id<kind::Token>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_is_the_end_of_the_id() {
        let id: DeploymentId = "0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e".parse().unwrap();
        assert_eq!(id.short(), "3f6a1c2b4d5e");
    }

    #[test]
    fn a_wrong_id_says_what_was_wanted() {
        let error = "nope".parse::<ProjectId>().unwrap_err();
        assert!(error.to_string().starts_with("`nope` is not a project id"));
    }
}
