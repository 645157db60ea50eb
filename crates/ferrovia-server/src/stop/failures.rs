//! Everything that could not be ended, told at once and kept for the end.

use std::error::Error;
use std::fmt;

use futures_util::{StreamExt, stream};

use crate::command::{Failure, chain};

/// What failed, in the order in which it did.
#[derive(Debug, Default)]
pub struct Failures(Vec<String>);

impl Failures {
    /// Notes that something could not be ended, and why.
    pub fn add(&mut self, what: &str, error: &(dyn Error + 'static)) {
        let failure = format!("{what} could not be ended: {}", chain(error));
        eprintln!("failed   {failure}");
        self.0.push(failure);
    }

    /// Whether everything ended.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// One with every failure, when there is any.
    pub fn into_result(self) -> Result<(), Failure> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(self.to_string().into())
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not everything could be ended; `ferroviad stop` tries again")?;
        self.0.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

/// Does the same with each, some at a time; one that fails keeps no other from being tried. How many succeeded.
pub async fn each<T, E, F>(
    items: Vec<T>,
    at_once: usize,
    failures: &mut Failures,
    work: impl Fn(T) -> F,
) -> usize
where
    F: Future<Output = Result<(), (String, E)>>,
    E: Error + 'static,
{
    let mut results = stream::iter(items).map(work).buffer_unordered(at_once);
    let mut succeeded = 0;
    while let Some(result) = results.next().await {
        match result {
            Ok(()) => succeeded += 1,
            Err((what, error)) => failures.add(&what, &error),
        }
    }
    succeeded
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn one_that_fails_keeps_no_other_from_being_tried() {
        let mut failures = Failures::default();
        let tried = Mutex::new(Vec::new());
        let succeeded = each((0..40).collect(), 4, &mut failures, |number: u32| {
            tried.lock().unwrap().push(number);
            async move {
                match number % 10 {
                    3 => Err((
                        format!("`r{number}`"),
                        std::io::Error::other("it does not listen"),
                    )),
                    _ => Ok(()),
                }
            }
        })
        .await;
        assert_eq!(succeeded, 36);
        assert_eq!(tried.into_inner().unwrap().len(), 40);
        let text = failures.into_result().unwrap_err().to_string();
        for number in [3, 13, 23, 33] {
            let line = format!("\n  `r{number}` could not be ended: it does not listen");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn nothing_failed_is_success() {
        assert!(Failures::default().into_result().is_ok());
    }
}
