//! Licence expressions of SPDX (2.3, annex D), and cargo's older way to write `OR` as `/`.

use std::collections::BTreeSet;

/// Whether what the expression demands can be met by allowed licences alone.
///
/// # Errors
/// A sentence about an expression that is none.
pub fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    if words.is_empty() {
        return Err("it says none".to_owned());
    }
    let mut reader = Reader {
        words: &words,
        allowed,
    };
    let met = reader.either()?;
    match reader.words.first() {
        None => Ok(met),
        Some(word) => Err(format!("`{word}` is not expected there")),
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    allowed: &'a BTreeSet<String>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, wanted: &str) -> bool {
        match self.words.split_first() {
            Some((word, rest)) if *word == wanted => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    fn next(&mut self) -> Result<&'a str, String> {
        let (word, rest) = self.words.split_first().ok_or("it ends too early")?;
        self.words = rest;
        Ok(word)
    }

    fn either(&mut self) -> Result<bool, String> {
        let mut met = self.both()?;
        while self.take("OR") {
            met |= self.both()?;
        }
        Ok(met)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Ok(met)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let met = self.either()?;
            return match self.take(")") {
                true => Ok(met),
                false => Err("a bracket is not closed".to_owned()),
            };
        }
        let licence = self.next()?;
        if self.take("WITH") {
            let exception = self.next()?;
            return Ok(self.allowed.contains(&format!("{licence} WITH {exception}")));
        }
        Ok(self.allowed.contains(licence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]
            .map(str::to_owned)
            .into();
        for (expression, wanted) in [
            ("MIT", Ok(true)),
            ("GPL-3.0-only", Ok(false)),
            ("GPL-3.0-only OR MIT", Ok(true)),
            ("GPL-3.0-only/MIT", Ok(true)),
            ("GPL-3.0-only AND MIT", Ok(false)),
            // AND binds closer.
            ("MIT OR GPL-3.0-only AND ISC", Ok(true)),
            ("(MIT OR GPL-3.0-only) AND ISC", Ok(true)),
            ("(MIT OR ISC) AND GPL-3.0-only", Ok(false)),
            ("Apache-2.0", Ok(false)),
            ("Apache-2.0 WITH LLVM-exception", Ok(true)),
            ("", Err("it says none".to_owned())),
            ("(MIT", Err("a bracket is not closed".to_owned())),
            ("MIT OR", Err("it ends too early".to_owned())),
            ("MIT ISC", Err("`ISC` is not expected there".to_owned())),
        ] {
            assert_eq!(is_allowed(expression, &allowed), wanted, "{expression}");
        }
    }
}
