//! Random interleavings of append, seal, torn tail, reopen, read and follow: each line exactly once.

use ferrovia_log::{CursorChange, Follower, Limits, NewLine, Query, Reader, Stream, Writer};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Append {
        lines: usize,
        length: usize,
    },
    Seal,
    Reopen,
    /// Dies in the middle of an append: `cut` thousandths of the frame are on disk.
    Torn {
        cut: u32,
    },
    Follow(usize),
    Read,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..8_usize, 0..200_usize).prop_map(|(lines, length)| Op::Append { lines, length }),
        1 => Just(Op::Seal),
        1 => Just(Op::Reopen),
        2 => (0..1000_u32).prop_map(|cut| Op::Torn { cut }),
        4 => (0..3_usize).prop_map(Op::Follow),
        1 => Just(Op::Read),
    ];
    proptest::collection::vec(op, 1..60)
}

/// What a reader must see: the text of each line tells its number.
struct Source {
    next: u64,
    length: usize,
}

impl Source {
    fn texts(&self, count: usize) -> Vec<String> {
        (0..count as u64)
            .map(|n| format!("{} {}", self.next + n, "x".repeat(self.length)))
            .collect()
    }
}

fn append(writer: &mut Writer, source: &mut Source, count: usize, length: usize) {
    source.length = length;
    let texts = source.texts(count);
    let lines: Vec<NewLine<'_>> = texts
        .iter()
        .map(|text| NewLine {
            at_ms: 5,
            stream: Stream::Stderr,
            source: "r",
            deployment: None,
            text,
            continues: false,
        })
        .collect();
    source.next += count as u64;
    let cursor = source.next.to_le_bytes();
    writer
        .append(
            &lines,
            &[CursorChange {
                key: "r",
                value: Some(&cursor),
            }],
        )
        .unwrap();
}

fn number(text: &str) -> u64 {
    text.split(' ').next().unwrap().parse().unwrap()
}

fn newest_open(directory: &std::path::Path) -> std::path::PathBuf {
    let mut open: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "open"))
        .collect();
    open.sort();
    open.pop().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn each_line_exactly_once(ops in ops(), segment_bytes in 100..3_000_u64, tight in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let budget_bytes = if tight { segment_bytes + 400 } else { 10_000_000 };
        let limits = Limits { segment_bytes, budget_bytes };
        let mut writer = Some(Writer::open(directory.path(), limits).unwrap());
        let mut source = Source { next: 1, length: 0 };
        let reader = Reader::new(directory.path());
        let mut followers: Vec<(Follower, u64)> = (0..3).map(|_| (reader.follow(0), 0)).collect();
        for op in ops {
            let open = writer.as_mut().unwrap();
            match op {
                Op::Append { lines, length } => append(open, &mut source, lines, length),
                Op::Seal => open.seal().unwrap(),
                Op::Reopen => {
                    drop(writer.take());
                    writer = Some(Writer::open(directory.path(), limits).unwrap());
                }
                Op::Torn { cut } => {
                    let path = newest_open(directory.path());
                    let before = std::fs::metadata(&path).unwrap().len();
                    let mut lost = Source { ..source };
                    append(open, &mut lost, 2, 50);
                    drop(writer.take());
                    // A rotation began a new file: then the frame is in that one, after its head frame.
                    if newest_open(directory.path()) == path {
                        let after = std::fs::metadata(&path).unwrap().len();
                        let kept = before + (after - before) * u64::from(cut) / 1000;
                        std::fs::File::options().write(true).open(&path).unwrap().set_len(kept).unwrap();
                    } else {
                        source = lost;
                    }
                    for (follower, seen) in &mut followers {
                        check_follower(follower, seen, tight)?;
                    }
                    let reopened = Writer::open(directory.path(), limits).unwrap();
                    prop_assert_eq!(reopened.last_seq() + 1, source.next);
                    writer = Some(reopened);
                }
                Op::Follow(which) => {
                    let (follower, seen) = &mut followers[which];
                    check_follower(follower, seen, tight)?;
                }
                Op::Read => {
                    let lines = reader.read(&Query { limit: 100_000, ..Query::default() }).unwrap();
                    let numbers: Vec<u64> = lines.iter().map(|line| number(&line.text)).collect();
                    prop_assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
                    prop_assert_eq!(numbers.last().map_or(source.next, |last| last + 1), source.next);
                    if !tight {
                        prop_assert_eq!(numbers.len() as u64, source.next - 1);
                    }
                }
            }
            let open = writer.as_ref().unwrap();
            prop_assert_eq!(open.last_seq() + 1, source.next);
            if source.next > 1 {
                prop_assert_eq!(open.cursor("r"), Some(&source.next.to_le_bytes()[..]));
            }
        }
        for (follower, seen) in &mut followers {
            check_follower(follower, seen, tight)?;
            if !tight {
                prop_assert_eq!(*seen + 1, source.next);
            }
        }
    }
}

/// Reads what is new: in order, nothing twice, and nothing missing unless the budget took it.
fn check_follower(follower: &mut Follower, seen: &mut u64, tight: bool) -> Result<(), TestCaseError> {
    loop {
        let lines = follower.poll().unwrap();
        if lines.is_empty() {
            return Ok(());
        }
        for line in lines {
            let n = number(&line.text);
            prop_assert_eq!(n, line.seq);
            if tight {
                prop_assert!(n > *seen);
            } else {
                prop_assert_eq!(n, *seen + 1);
            }
            *seen = n;
        }
    }
}
