//! Why an image could not be had, for people.

use ferrovia_core::error::{Class, Report};

use crate::BuildError;

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The registry has no such image.
    #[error("the registry has no such image")]
    NotFound,
    /// The registry wants another login, or one at all.
    #[error("the registry does not give it to this login")]
    Denied,
    /// The registry limits how often it is asked.
    #[error("the registry was asked too often")]
    TooOften,
    /// The registry does not answer, or not as a registry does.
    #[error("the registry does not answer: {0}")]
    Unreachable(String),
    /// The name leads to an address that is closed.
    #[error("`{0}` is at a private, local or reserved address")]
    Closed(String),
    /// Not for this machine's architecture.
    #[error("it is not for this machine's architecture")]
    Architecture {
        /// What this machine is.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
    /// The content is not what its digest says, or not an image.
    #[error("what came is not what was asked for: {0}")]
    Wrong(String),
    /// The platform's own registry could not take it.
    #[error("it cannot be kept")]
    Store(#[from] crate::registry::Error),
}

impl FetchError {
    /// Whether another endpoint may have it.
    pub(super) const fn may_be_elsewhere(&self) -> bool {
        !matches!(self, Self::Architecture { .. } | Self::Store(_) | Self::Closed(_))
    }

    /// Whether the same request may succeed soon.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Wrong(_))
    }

    /// What people are told about this image.
    pub fn into_build_error(self, image: &str) -> BuildError {
        let report = |code: &str, what: String| Report::new(code, format!("the image `{image}` {what}"));
        let (report, class) = match self {
            Self::NotFound => (
                report("image_not_found", "does not exist in its registry".into())
                    .with_hint("check its name and tag; a private image needs pull credentials for its registry"),
                Class::NotFound,
            ),
            Self::Denied => (
                report("image_denied", "is not given out by its registry".into()).with_hint(
                    "check its name; a private image needs pull credentials: `[registries.\"HOST\"]` in the configuration file",
                ),
                Class::Denied,
            ),
            Self::TooOften => (
                report("image_rate_limited", "cannot be fetched now: its registry was asked too often".into())
                    .with_hint("deploy again later, or set a mirror or pull credentials for its registry"),
                Class::Transient,
            ),
            Self::Unreachable(why) => (
                report("image_unreachable", format!("cannot be fetched: its registry does not answer ({why})"))
                    .with_hint("check the name of the registry and this machine's network, or set a mirror for the registry"),
                Class::Transient,
            ),
            Self::Closed(host) => (
                report("image_address_closed", format!("is not fetched: `{host}` is at a private or local address"))
                    .with_hint(format!(
                        "if that registry is yours, name it in the configuration file: `[registries.\"{host}\"]`"
                    )),
                Class::Denied,
            ),
            Self::Architecture { wanted, found } => (
                report("image_architecture", format!("does not exist for `{wanted}`, only for {}", found.join(", ")))
                    .with_hint("use an image that is built for this machine's architecture"),
                Class::Invalid,
            ),
            Self::Wrong(what) => (
                report("image_broken", format!("cannot be used: {what}"))
                    .with_hint("its registry or a mirror gives something else than an image; try another tag or mirror"),
                Class::Invalid,
            ),
            Self::Store(error) => {
                let class = error.class();
                (
                    report("image_not_kept", format!("could not be kept: {error}"))
                        .with_hint("free space on this machine's disk, then deploy again"),
                    class,
                )
            }
        };
        BuildError { report, class }
    }
}
