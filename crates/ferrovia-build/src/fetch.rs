//! Images from elsewhere: `deploy --image nginx:1.27` becomes an image by digest in the platform's registry.
//!
//! A tag is resolved once, when the build is planned; then manifest and blobs are copied, each verified against its
//! digest, so that engines pull from the platform alone and a tag that moves upstream moves nothing that runs. Of an image
//! for several platforms the one for this machine is taken.
//!
//! A reference is hostile input: it makes control, as root, connect to where it says. So names that resolve to loopback,
//! private, shared or link-local addresses are refused where the connection is made ([`guard`]), after every redirect and
//! for token services too; registries that the settings name are exempt, and only they may speak plain HTTP.

mod address;
mod client;
mod copy;
mod error;
pub mod guard;
mod reference;
mod token;

pub use address::{Endpoint, Hosts, RegistryHost};
pub use client::{Client, Resolved};
pub use copy::Copied;
pub use error::FetchError;
pub use reference::{DOCKER_HUB, ImageName, ParseImageError};
