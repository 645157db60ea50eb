//! Pages of lists. A cursor is opaque to clients: here it is the last name, number or id of the page before.

use std::str::FromStr;

use super::code;
use super::error::Error;

/// Most things in one page.
pub const MAX_PAGE: u32 = 500;

/// Which page is wanted.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// Most things.
    pub limit: u32,
    /// The `next` of the page before.
    pub after: Option<String>,
}

/// A page.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// What leads to the next one.
    pub next: Option<String>,
}

impl PageRequest {
    /// One more than is asked for, so that it is known whether there is more.
    pub(super) fn fetch(&self) -> u32 {
        self.limit.clamp(1, MAX_PAGE) + 1
    }

    /// The cursor.
    pub(super) fn after<T: FromStr>(&self) -> Result<Option<T>, Error> {
        let Some(text) = &self.after else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Error::new(&code::CURSOR_INVALID, "`after` is no cursor of this list")
                .hint("give the `next` of the page before, as it is")
                .field("after")
        })
    }

    /// The page of what was fetched.
    pub(super) fn page<T>(&self, mut fetched: Vec<T>, cursor: impl Fn(&T) -> String) -> Page<T> {
        let limit = self.limit.clamp(1, MAX_PAGE) as usize;
        let more = fetched.len() > limit;
        fetched.truncate(limit);
        let next = more.then(|| fetched.last().map(cursor)).flatten();
        Page { items: fetched, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_leads_nowhere() {
        let request = PageRequest {
            limit: 2,
            after: Some("x".into()),
        };
        assert_eq!(request.fetch(), 3);
        let page = request.page(vec![1, 2, 3], ToString::to_string);
        assert_eq!((page.items, page.next), (vec![1, 2], Some("2".into())));
        assert_eq!(request.page(vec![1, 2], ToString::to_string).next, None);
        assert!(request.after::<u32>().is_err());
    }
}
