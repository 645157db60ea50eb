//! Edges and nodes as readers of the tables: who has acknowledged what.

use std::collections::BTreeMap;

use super::READER_GONE_AFTER_MS;
use crate::id::ReplicaId;
use crate::table::{Audience, Version};

/// Every reader that was ever heard of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readers {
    /// The epoch of the tables' head; what a reader holds of another epoch counts as nothing.
    pub epoch: u64,
    /// Which kinds of readers this installation has. A deployment needs one of each.
    pub audiences: Vec<Audience>,
    /// The readers.
    pub readers: Vec<Reader>,
}

/// One edge or node.
#[derive(Debug, Clone, PartialEq)]
pub struct Reader {
    /// Its name.
    pub name: String,
    /// Which table it reads.
    pub audience: Audience,
    /// What it durably holds and serves from.
    pub version: Version,
    /// Whether it is connected now.
    pub connected: bool,
    /// When it was last heard, in milliseconds since 1970.
    pub last_seen_ms: i64,
    /// What it last counted.
    pub in_flight: Option<InFlightReport>,
}

/// Requests or connections in flight, as one reader counted them under one version of its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlightReport {
    /// The version it served from when it counted.
    pub version: Version,
    /// How many are open towards each replica; none are open towards one that is absent.
    pub open: BTreeMap<ReplicaId, u32>,
}

impl Readers {
    /// Whether a version covers a revision of the present epoch.
    fn covers(&self, version: Version, revision: u64) -> bool {
        version.epoch == self.epoch && version.revision >= revision
    }

    /// Whether every connected reader of this kind has acknowledged the revision, and there is at least one.
    pub fn live_cover(&self, audience: Audience, revision: u64) -> bool {
        let mut connected = self
            .readers
            .iter()
            .filter(|reader| reader.audience == audience && reader.connected)
            .peekable();
        connected.peek().is_some() && connected.all(|reader| self.covers(reader.version, revision))
    }

    /// The same for every kind of reader that the installation has.
    pub fn all_live_cover(&self, revision: u64) -> bool {
        self.audiences
            .iter()
            .all(|&audience| self.live_cover(audience, revision))
    }

    /// The readers that may still act on what they hold: the connected ones, those absent for less than
    /// [`READER_GONE_AFTER_MS`], and of each kind at least the one that was seen last.
    fn possible(&self, now_ms: i64) -> impl Iterator<Item = &Reader> {
        let newest = |audience: Audience| {
            let seen = self.readers.iter().filter(|reader| reader.audience == audience);
            seen.map(|reader| (reader.connected, reader.last_seen_ms)).max()
        };
        let newest = [newest(Audience::Edge), newest(Audience::Node)];
        self.readers.iter().filter(move |reader| {
            let is_last = match reader.audience {
                Audience::Edge => newest[0],
                Audience::Node => newest[1],
            } == Some((reader.connected, reader.last_seen_ms));
            reader.connected || now_ms < reader.last_seen_ms.saturating_add(READER_GONE_AFTER_MS) || is_last
        })
    }

    /// Whether nobody can act on a table older than the revision. `Err` gives the time when an absent reader that
    /// stands in the way counts as gone.
    pub(super) fn everywhere(&self, revision: u64, now_ms: i64) -> Result<(), Option<i64>> {
        let mut waits = false;
        let mut next_gone_ms: Option<i64> = None;
        for reader in self.possible(now_ms) {
            if self.covers(reader.version, revision) {
                continue;
            }
            waits = true;
            let gone_ms = reader.last_seen_ms.saturating_add(READER_GONE_AFTER_MS);
            if !reader.connected && gone_ms > now_ms {
                next_gone_ms = Some(next_gone_ms.map_or(gone_ms, |earlier| earlier.min(gone_ms)));
            }
        }
        if waits { Err(next_gone_ms) } else { Ok(()) }
    }

    /// Whether every reader that may still act says, from a table that covers the revision, that nothing is in
    /// flight towards the replica.
    pub(super) fn idle(&self, replica: ReplicaId, revision: u64, now_ms: i64) -> bool {
        self.possible(now_ms).all(|reader| {
            reader.connected
                && reader.in_flight.as_ref().is_some_and(|report| {
                    self.covers(report.version, revision)
                        && report.open.get(&replica).is_none_or(|&open| open == 0)
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(name: &str, audience: Audience, revision: u64, connected: bool, last_seen_ms: i64) -> Reader {
        Reader {
            name: name.to_owned(),
            audience,
            version: Version { epoch: 1, revision },
            connected,
            last_seen_ms,
            in_flight: None,
        }
    }

    fn readers(readers: Vec<Reader>) -> Readers {
        Readers {
            epoch: 1,
            audiences: vec![Audience::Edge, Audience::Node],
            readers,
        }
    }

    #[test]
    fn success_needs_one_of_each_kind() {
        let only_edge = readers(vec![reader("e", Audience::Edge, 5, true, 0)]);
        assert!(only_edge.live_cover(Audience::Edge, 5));
        assert!(!only_edge.all_live_cover(5));
    }

    #[test]
    fn an_absent_edge_blocks_a_stop_for_ten_minutes_and_a_success_never() {
        let two = readers(vec![
            reader("here", Audience::Edge, 5, true, 0),
            reader("away", Audience::Edge, 3, false, 1_000),
        ]);
        assert!(two.live_cover(Audience::Edge, 5));
        assert_eq!(two.everywhere(5, 2_000), Err(Some(1_000 + READER_GONE_AFTER_MS)));
        assert_eq!(two.everywhere(5, 1_000 + READER_GONE_AFTER_MS), Ok(()));
    }

    #[test]
    fn the_only_edge_is_never_gone() {
        let one = readers(vec![reader("away", Audience::Edge, 3, false, 1_000)]);
        assert_eq!(one.everywhere(5, i64::MAX), Err(None));
        assert_eq!(one.everywhere(3, i64::MAX), Ok(()));
    }

    #[test]
    fn what_was_held_in_another_epoch_counts_as_nothing() {
        let mut one = readers(vec![reader("e", Audience::Edge, 9, true, 0)]);
        one.epoch = 2;
        assert!(!one.live_cover(Audience::Edge, 1));
    }
}
