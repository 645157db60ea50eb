//! Who may do what in the registry: one login per purpose, kept in memory only.
//!
//! Logins are made when control starts (the engine's) or when a build begins, and end with it: no file holds them, and
//! what leaks from a build opens only that project's repositories, for as long as the build runs.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ferrovia_core::secret::Secret;

use super::Repository;
use crate::digest::Digest;

/// Random bytes in a password.
const PASSWORD_BYTES: usize = 24;

/// What a login opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Pull everything: the engine.
    PullAll,
    /// Pull and push where the repository begins with one of `push`, and pull where it begins with one of `pull`.
    Repositories {
        /// Prefixes, each ending in `/` or naming a repository whole.
        push: Vec<String>,
        /// Prefixes, likewise.
        pull: Vec<String>,
    },
}

/// Whether a name stands under a prefix: the same, or below it at a `/`.
fn is_under(name: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Scope {
    /// Whether this repository may be read.
    pub fn may_pull(&self, repository: &Repository) -> bool {
        match self {
            Self::PullAll => true,
            Self::Repositories { push, pull } => push
                .iter()
                .chain(pull)
                .any(|prefix| is_under(repository.as_str(), prefix)),
        }
    }

    /// Whether this repository may be written.
    pub fn may_push(&self, repository: &Repository) -> bool {
        match self {
            Self::PullAll => false,
            Self::Repositories { push, .. } => {
                push.iter().any(|prefix| is_under(repository.as_str(), prefix))
            }
        }
    }
}

/// How a client signs in.
#[derive(Debug, Clone)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret,
}

impl Login {
    /// The value of the `auth` field in Docker's configuration file.
    pub fn basic(&self) -> Secret {
        Secret::new(STANDARD.encode(format!("{}:{}", self.user, self.password.expose())))
    }
}

struct Entry {
    password: Digest,
    scope: Scope,
}

type Entries = Arc<RwLock<HashMap<String, Entry>>>;

/// The logins that are valid now.
#[derive(Clone, Default)]
pub struct Access(Entries);

/// A login that is valid for as long as this lives.
pub struct Grant {
    login: Login,
    entries: Entries,
}

impl Grant {
    /// The login.
    pub const fn login(&self) -> &Login {
        &self.login
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.entries
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.login.user);
    }
}

impl Access {
    /// Makes a login. `purpose` begins its user name, for logs.
    pub fn grant(&self, purpose: &str, scope: Scope) -> Grant {
        let user = format!("{purpose}-{}", uuid::Uuid::now_v7().simple());
        let password = URL_SAFE_NO_PAD.encode(rand::random::<[u8; PASSWORD_BYTES]>());
        let entry = Entry {
            password: Digest::of(password.as_bytes()),
            scope,
        };
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(user.clone(), entry);
        Grant {
            login: Login {
                user,
                password: Secret::new(password),
            },
            entries: Arc::clone(&self.0),
        }
    }

    /// What the value of an `Authorization` header opens; `None` when it opens nothing.
    pub fn check(&self, authorization: &str) -> Option<Scope> {
        let (scheme, encoded) = authorization.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(user)?;
        let given = Digest::of(password.as_bytes());
        // Digests of random passwords: equal time, whatever was given.
        verify_slices_are_equal(given.hex().as_bytes(), entry.password.hex().as_bytes()).ok()?;
        Some(entry.scope.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_ends_when_dropped_and_opens_only_its_scope() {
        let access = Access::default();
        let scope = Scope::Repositories {
            push: vec!["apps/p1/".into()],
            pull: vec!["bases/".into()],
        };
        let grant = access.grant("build", scope.clone());
        let header = format!("Basic {}", grant.login().basic().expose());
        assert_eq!(access.check(&header), Some(scope.clone()));
        assert_eq!(access.check("Basic eDp5"), None);
        assert_eq!(access.check("Bearer x"), None);
        assert_eq!(access.check(""), None);
        drop(grant);
        assert_eq!(access.check(&header), None);

        let named = |text: &str| text.parse::<Repository>().unwrap();
        assert!(scope.may_push(&named("apps/p1/web")));
        assert!(!scope.may_push(&named("apps/p11/web")));
        assert!(!scope.may_pull(&named("apps/p2/web")));
        assert!(scope.may_pull(&named("bases/debian")));
        assert!(!scope.may_push(&named("bases/debian")));
        assert!(Scope::PullAll.may_pull(&named("x")) && !Scope::PullAll.may_push(&named("x")));
    }
}
