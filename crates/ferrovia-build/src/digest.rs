//! SHA-256 content digests, in the words of OCI: `sha256:` and 64 lower-case hexadecimal digits. The same that name the
//! contents of source trees.

pub use ferrovia_core::tree::{Hasher, ParseDigestError, Sha256 as Digest};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        let digest = Digest::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        for wrong in [
            "",
            "sha256:",
            "sha512:00",
            &text.to_uppercase(),
            &text[..70],
            &format!("{text}0"),
        ] {
            assert_eq!(wrong.parse::<Digest>(), Err(ParseDigestError), "{wrong}");
        }
    }
}
