//! Reading back: ranges, filters, limits from both ends, the budget, long lines.

use ferrovia_log::{
    CursorChange, Error, Limits, MAX_LINE_BYTES, NewLine, Order, Query, Reader, Stream, Writer,
};

const SMALL: Limits = Limits {
    segment_bytes: 2_000,
    budget_bytes: 1_000_000,
};

fn line(at_ms: i64, text: &str) -> NewLine<'_> {
    NewLine {
        at_ms,
        stream: Stream::Stdout,
        source: "replica-1",
        deployment: None,
        text,
        continues: false,
    }
}

fn filled(directory: &std::path::Path, count: i64) -> Writer {
    let mut writer = Writer::open(directory, SMALL).unwrap();
    for n in 1..=count {
        writer
            .append(&[line(n * 10, &format!("request {n} of some length"))], &[])
            .unwrap();
    }
    writer
}

fn seqs(reader: &Reader, query: &Query) -> Vec<u64> {
    reader.read(query).unwrap().iter().map(|line| line.seq).collect()
}

#[test]
fn ranges_filters_and_limits_from_both_ends() {
    let directory = tempfile::tempdir().unwrap();
    let _writer = filled(directory.path(), 500);
    let reader = Reader::new(directory.path());
    let query = Query {
        limit: 3,
        ..Query::default()
    };
    assert_eq!(seqs(&reader, &query), [1, 2, 3]);
    let newest = Query {
        order: Order::Newest,
        ..query.clone()
    };
    assert_eq!(seqs(&reader, &newest), [498, 499, 500]);
    assert_eq!(
        seqs(
            &reader,
            &Query {
                before: Some(300),
                ..newest.clone()
            }
        ),
        [297, 298, 299]
    );
    assert_eq!(
        seqs(
            &reader,
            &Query {
                after: Some(300),
                ..query.clone()
            }
        ),
        [301, 302, 303]
    );
    let range = Query {
        from_ms: Some(1_000),
        until_ms: Some(1_020),
        ..query.clone()
    };
    assert_eq!(seqs(&reader, &range), [100, 101]);
    let filter = Query {
        contains: Some("REQUEST 44".to_owned()),
        limit: 100,
        ..Query::default()
    };
    assert_eq!(
        seqs(&reader, &filter),
        [44, 440, 441, 442, 443, 444, 445, 446, 447, 448, 449]
    );
    let last = Query {
        order: Order::Newest,
        limit: 2,
        ..filter
    };
    assert_eq!(seqs(&reader, &last), [448, 449]);
    assert_eq!(reader.last_seq().unwrap(), 500);
}

#[test]
fn the_oldest_sealed_segments_give_way_to_the_budget() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        segment_bytes: 4_000,
        budget_bytes: 12_000,
    };
    let mut writer = Writer::open(directory.path(), limits).unwrap();
    let mut noise = 1_u64;
    for n in 0..3_000 {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        writer.append(&[line(n, &format!("{noise:016x}"))], &[]).unwrap();
        let size: u64 = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(size <= limits.budget_bytes + 200, "{size}");
    }
    let all = seqs(
        &Reader::new(directory.path()),
        &Query {
            limit: 10_000,
            ..Query::default()
        },
    );
    assert!(all[0] > 1 && *all.last().unwrap() == 3_000);
    assert!(all.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}

#[test]
fn long_lines_are_split_and_marked() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), Limits::default()).unwrap();
    let text = "ä".repeat(MAX_LINE_BYTES);
    assert_eq!(writer.append(&[line(1, &text), line(2, "end")], &[]).unwrap(), 3);
    let lines = Reader::new(directory.path()).read(&Query::default()).unwrap();
    assert_eq!(
        lines.iter().map(|line| line.continues).collect::<Vec<_>>(),
        [true, false, false]
    );
    assert_eq!(format!("{}{}", lines[0].text, lines[1].text), text);
}

#[test]
fn one_writer_at_a_time_and_the_cursor_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), SMALL).unwrap();
    assert!(matches!(
        Writer::open(directory.path(), SMALL),
        Err(Error::Locked(_))
    ));
    let cursor = |value| CursorChange { key: "c1", value };
    writer.append(&[line(1, "a")], &[cursor(Some(b"17"))]).unwrap();
    writer.seal().unwrap();
    drop(writer);
    let mut writer = Writer::open(directory.path(), SMALL).unwrap();
    assert_eq!((writer.last_seq(), writer.cursor("c1")), (1, Some(&b"17"[..])));
    writer.append(&[], &[cursor(None)]).unwrap();
    drop(writer);
    assert_eq!(Writer::open(directory.path(), SMALL).unwrap().cursor("c1"), None);
}

#[test]
fn a_failed_append_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), Limits::default()).unwrap();
    let text = "x".repeat(MAX_LINE_BYTES);
    let many = vec![line(1, &text); 200];
    assert!(matches!(writer.append(&many, &[]), Err(Error::TooLarge { .. })));
    assert_eq!(writer.append(&[line(1, "a")], &[]).unwrap(), 1);
}

#[test]
fn there_is_nothing_in_a_log_that_does_not_exist() {
    let reader = Reader::new("/nonexistent/log");
    assert!(reader.read(&Query::default()).unwrap().is_empty());
    assert!(reader.follow(0).poll().unwrap().is_empty());
}

#[tokio::test]
async fn a_follower_waits_for_the_log_to_begin() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("later");
    let follower = tokio::spawn(Reader::new(&log).follow(0).wait());
    tokio::task::yield_now().await;
    let _writer = filled(&log, 1);
    let (follower, lines) = follower.await.unwrap().unwrap();
    assert_eq!((follower.position(), lines.len()), (1, 1));
}
