//! The engine's names for replicas: readable in `docker ps`, the same for the same replica, different for every other.
//!
//! `fv-shop-production-web-v12-1`: prefix, project, environment, service, number, ordinal; `-r3` follows once the
//! instance was restarted. Two different owners could join to one text (`a-b`, `c` and `a`, `b-c`), or be shortened to
//! one: then digits of the instance's id stand between service and number. The bound is that of a DNS label, since
//! applications use `FERROVIA_REPLICA_ID` as a name of their own. The prefix is that of the address plan's
//! interfaces: two installations on one engine have different ones.

use ferrovia_core::workload::{Owner, ReplicaSlot};

/// Longest name, in bytes: a DNS label (RFC 1035 section 2.3.4).
pub const MAX_REPLICA_NAME_BYTES: usize = 63;
/// Digits of the instance's id that tell ambiguous names apart.
const DISTINGUISHING_DIGITS: usize = 6;

/// The engine's name for a replica.
pub fn replica_name(prefix: &str, owner: &Owner, slot: &ReplicaSlot) -> String {
    let mut tail = format!("-v{}-{}", owner.number, slot.ordinal);
    if slot.restart_nonce != 0 {
        tail.push_str(&format!("-r{}", slot.restart_nonce));
    }
    let parts = [
        owner.project.as_str(),
        owner.environment.as_str(),
        owner.service.as_str(),
    ];
    let plain = format!("{prefix}-{}{tail}", parts.join("-"));
    if plain.len() <= MAX_REPLICA_NAME_BYTES && parts.iter().all(|part| !part.contains('-')) {
        return plain;
    }
    let id = owner.instance_id.uuid().simple().to_string();
    let tail = format!("-{}{tail}", &id[id.len() - DISTINGUISHING_DIGITS..]);
    let room = MAX_REPLICA_NAME_BYTES.saturating_sub(prefix.len() + 1 + tail.len());
    format!("{prefix}-{}{tail}", joined(parts, room))
}

/// The parts joined by hyphens in at most `room` bytes: the longest part gives way first.
fn joined(parts: [&str; 3], room: usize) -> String {
    let mut parts = parts.map(str::to_owned);
    while parts.iter().map(String::len).sum::<usize>() + 2 > room {
        let Some(longest) = parts
            .iter_mut()
            .max_by_key(|part| part.len())
            .filter(|part| part.len() > 1)
        else {
            break;
        };
        longest.pop();
        longest.truncate(longest.trim_end_matches('-').len());
    }
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn names_read_well() {
        let owner = sample::owner("shop", "production", "web", 12);
        let mut slot = sample::slot(1, 5);
        assert_eq!(replica_name("fv", &owner, &slot), "fv-shop-production-web-v12-1");
        slot.restart_nonce = 3;
        assert_eq!(
            replica_name("fv", &owner, &slot),
            "fv-shop-production-web-v12-1-r3"
        );
    }

    #[test]
    fn what_joins_to_one_text_is_told_apart() {
        let slot = sample::slot(1, 5);
        let one = replica_name("fv", &sample::owner("a-b", "c", "d", 1), &slot);
        let other = replica_name("fv", &sample::owner("a", "b-c", "d", 1), &slot);
        assert_ne!(one, other);
        assert!(one.starts_with("fv-a-b-c-d-"), "{one}");
    }

    #[test]
    fn long_names_fit_and_keep_their_end() {
        let long = "x".repeat(40);
        let owner = sample::owner(&long, &long, "web", 4_000_000);
        let mut slot = sample::slot(100, 5);
        slot.restart_nonce = i64::MAX;
        let name = replica_name("fv", &owner, &slot);
        assert!(name.len() <= MAX_REPLICA_NAME_BYTES, "{name}");
        assert!(name.ends_with("-v4000000-100-r9223372036854775807"), "{name}");
    }
}
