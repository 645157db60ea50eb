//! Sealing with one key, and message authentication codes with a key that is derived from it.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use ferrovia_core::secret::Secret;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Error;

/// Length of a key, in bytes.
pub(super) const KEY_BYTES: usize = 32;
/// Length of a message authentication code, in bytes.
pub const MAC_BYTES: usize = 32;
/// First byte of a sealed value: how the rest is laid out.
const FORMAT: u8 = 1;
/// Format, key id, nonce: what stands before the sealed bytes.
const HEADER_BYTES: usize = 1 + 16 + NONCE_LEN;

/// Where a sealed value belongs; it opens nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    table: &'static str,
    bound: Vec<u8>,
}

impl Place {
    /// A row of a table, told from the others by `row`: the parts of its key, and the column when the row has several
    /// sealed values.
    pub fn new<'a>(table: &'static str, row: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut bound = Vec::new();
        // The lengths keep two places from reading the same.
        for part in std::iter::once(table.as_bytes()).chain(row) {
            bound.extend_from_slice(&length(part));
            bound.extend_from_slice(part);
        }
        Self { table, bound }
    }
}

/// A key of one project (or a master key), ready for use. Does not print.
pub struct DataKey {
    id: Uuid,
    sealing: LessSafeKey,
    mac: hmac::Key,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", self.id)
    }
}

impl DataKey {
    pub(super) fn new(id: Uuid, raw: &[u8; KEY_BYTES]) -> Result<Self, Error> {
        let sealing = derive(raw, b"seal");
        let sealing = UnboundKey::new(&AES_256_GCM, &sealing[..]).map_err(|_| Error::Failed)?;
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &derive(raw, b"mac")[..]);
        Ok(Self {
            id,
            sealing: LessSafeKey::new(sealing),
            mac,
        })
    }

    /// Its id, as it stands in rows.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Seals a text for its place.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub fn seal(&self, secret: &Secret, place: &Place) -> Result<Vec<u8>, Error> {
        self.seal_bytes(secret.expose().as_bytes(), place)
    }

    /// Opens a text that was sealed for this place.
    ///
    /// # Errors
    /// [`Error::Tampered`] when it was changed, moved or sealed with another key.
    pub fn open(&self, sealed: &[u8], place: &Place) -> Result<Secret, Error> {
        let mut bytes = self.open_bytes(sealed, place)?;
        let text = String::from_utf8(std::mem::take(&mut *bytes));
        text.map(Secret::new)
            .map_err(|_| Error::Tampered { table: place.table })
    }

    /// Seals keys and values, in order, as one.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub fn seal_pairs(&self, pairs: &[(String, Secret)], place: &Place) -> Result<Vec<u8>, Error> {
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.expose()))
            .collect();
        let json = Zeroizing::new(serde_json::to_vec(&pairs).map_err(|_| Error::Failed)?);
        self.seal_bytes(&json, place)
    }

    /// Opens what [`DataKey::seal_pairs`] sealed for this place.
    ///
    /// # Errors
    /// [`Error::Tampered`] when it was changed, moved or sealed with another key.
    pub fn open_pairs(&self, sealed: &[u8], place: &Place) -> Result<Vec<(String, Secret)>, Error> {
        let json = self.open_bytes(sealed, place)?;
        let pairs: Vec<(String, String)> =
            serde_json::from_slice(&json).map_err(|_| Error::Tampered { table: place.table })?;
        Ok(pairs
            .into_iter()
            .map(|(key, value)| (key, Secret::new(value)))
            .collect())
    }

    /// A code over `parts` that only holders of the key can make, in hex. Equal parts, equal code; another `purpose`,
    /// another code.
    pub fn mac<'a>(&self, purpose: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut context = hmac::Context::with_key(&self.mac);
        update(&mut context, purpose.as_bytes());
        for part in parts {
            update(&mut context, part);
        }
        hex::encode(context.sign())
    }

    pub(super) fn seal_bytes(&self, plain: &[u8], place: &Place) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| Error::Failed)?;
        let mut sealed = Vec::with_capacity(HEADER_BYTES + plain.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(self.id.as_bytes());
        sealed.extend_from_slice(&nonce);
        // Sealed in a buffer of its final size: growing would leave copies of the plain text behind.
        let mut body = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        body.extend_from_slice(plain);
        let aad = Aad::from(self.bound_to(place));
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.sealing
            .seal_in_place_append_tag(nonce, aad, &mut body)
            .map_err(|_| Error::Failed)?;
        sealed.append(&mut body);
        Ok(sealed)
    }

    pub(super) fn open_bytes(&self, sealed: &[u8], place: &Place) -> Result<Zeroizing<Vec<u8>>, Error> {
        let tampered = || Error::Tampered { table: place.table };
        let (id, nonce) = header(sealed, place)?;
        if id != self.id {
            return Err(Error::UnknownKey { id: id.to_string() });
        }
        let mut body = Zeroizing::new(sealed[HEADER_BYTES..].to_vec());
        let aad = Aad::from(self.bound_to(place));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self
            .sealing
            .open_in_place(nonce, aad, &mut body)
            .map_err(|_| tampered())?
            .len();
        body.truncate(length);
        Ok(body)
    }

    /// What is authenticated beside the secret itself.
    fn bound_to(&self, place: &Place) -> Vec<u8> {
        let mut bound = vec![FORMAT];
        bound.extend_from_slice(self.id.as_bytes());
        bound.extend_from_slice(&place.bound);
        bound
    }
}

/// The id of the key that a value was sealed with.
pub(super) fn key_id(sealed: &[u8], place: &Place) -> Result<Uuid, Error> {
    header(sealed, place).map(|(id, _)| id)
}

fn header(sealed: &[u8], place: &Place) -> Result<(Uuid, [u8; NONCE_LEN]), Error> {
    let tampered = Error::Tampered { table: place.table };
    if sealed.len() < HEADER_BYTES || sealed[0] != FORMAT {
        return Err(tampered);
    }
    match (sealed[1..17].try_into(), sealed[17..HEADER_BYTES].try_into()) {
        (Ok(id), Ok(nonce)) => Ok((Uuid::from_bytes(id), nonce)),
        _ => Err(tampered),
    }
}

/// A key for one use from a key for all (HMAC as a pseudo-random function, RFC 5869 section 2.3).
pub(super) fn derive(raw: &[u8; KEY_BYTES], purpose: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, raw));
    context.update(b"ferrovia ");
    context.update(purpose);
    let mut derived = Zeroizing::new([0; KEY_BYTES]);
    derived.copy_from_slice(context.sign().as_ref());
    derived
}

fn update(context: &mut hmac::Context, part: &[u8]) {
    context.update(&length(part));
    context.update(part);
}

fn length(part: &[u8]) -> [u8; 8] {
    (part.len() as u64).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> DataKey {
        DataKey::new(Uuid::from_u128(u128::from(n)), &[n; KEY_BYTES]).unwrap()
    }

    fn place() -> Place {
        Place::new("variable", [b"ab".as_slice(), b"c"])
    }

    #[test]
    fn opens_what_it_sealed() {
        for text in ["", "x", "ü$'\"\n\u{1F680}", &"long ".repeat(20_000)] {
            let sealed = key(1).seal(&Secret::new(text), &place()).unwrap();
            assert_eq!(key(1).open(&sealed, &place()).unwrap().expose(), text);
            assert_eq!(key_id(&sealed, &place()).unwrap(), Uuid::from_u128(1));
        }
        let secret = Secret::new("same");
        assert_ne!(
            key(1).seal(&secret, &place()).unwrap(),
            key(1).seal(&secret, &place()).unwrap()
        );
        let pairs = vec![
            ("B".to_owned(), Secret::new("2")),
            ("A".to_owned(), Secret::new("1\n")),
        ];
        let sealed = key(1).seal_pairs(&pairs, &place()).unwrap();
        assert_eq!(key(1).open_pairs(&sealed, &place()).unwrap(), pairs);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let sealed = key(1).seal(&Secret::new("attack at dawn"), &place()).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key(1).open(&changed, &place()).is_err(), "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(
                key(1).open(&sealed[..length], &place()).is_err(),
                "{length} bytes"
            );
        }
        let error = key(1).open(&sealed[..20], &place()).unwrap_err().to_string();
        assert!(!error.contains("attack"));
    }

    #[test]
    fn a_secret_opens_at_its_place_only() {
        let sealed = key(1).seal(&Secret::new("attack at dawn"), &place()).unwrap();
        let others: [(_, &[&[u8]]); 5] = [
            ("build", &[b"ab", b"c"]),
            ("variable", &[b"a", b"bc"]),
            ("variable", &[b"abc"]),
            ("variable", &[b"ab", b"c", b""]),
            ("variable", &[]),
        ];
        for (table, row) in others {
            let place = Place::new(table, row.iter().copied());
            assert!(
                matches!(key(1).open(&sealed, &place), Err(Error::Tampered { .. })),
                "{place:?}"
            );
        }
        assert!(matches!(
            key(2).open(&sealed, &place()),
            Err(Error::UnknownKey { .. })
        ));
        let same_id = DataKey::new(Uuid::from_u128(1), &[2; KEY_BYTES]).unwrap();
        assert!(matches!(
            same_id.open(&sealed, &place()),
            Err(Error::Tampered { .. })
        ));
    }

    #[test]
    fn codes_tell_purposes_parts_and_keys_apart() {
        let codes = [
            key(1).mac("spec", [b"ab".as_slice(), b"c"]),
            key(1).mac("spec", [b"a".as_slice(), b"bc"]),
            key(1).mac("image", [b"ab".as_slice(), b"c"]),
            key(2).mac("spec", [b"ab".as_slice(), b"c"]),
            key(1).mac("spec", []),
        ];
        for (n, code) in codes.iter().enumerate() {
            assert_eq!(code.len(), 2 * MAC_BYTES);
            assert!(codes[n + 1..].iter().all(|other| other != code));
        }
        assert_eq!(codes[0], key(1).mac("spec", [b"ab".as_slice(), b"c"]));
    }

    #[test]
    fn nothing_prints() {
        assert_eq!(
            format!("{:?}", key(1)),
            "DataKey(00000000-0000-0000-0000-000000000001)"
        );
    }
}
