//! A writer in another process, killed at random times, while a follower reads.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ferrovia_log::{CursorChange, Limits, NewLine, Query, Reader, Stream, Writer};

const DIRECTORY: &str = "FERROVIA_LOG_TEST_DIRECTORY";
const ROUNDS: u32 = 12;
const LIMITS: Limits = Limits {
    segment_bytes: 20_000,
    budget_bytes: 1_000_000_000,
};

/// The child: numbers from the cursor on, as fast as it can, until it is killed.
#[test]
#[ignore = "run by the test below as a process of its own"]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let mut writer = Writer::open(directory.as_ref(), LIMITS).unwrap();
    let mut next = writer
        .cursor("n")
        .map_or(1, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    println!("ready");
    loop {
        let texts: Vec<String> = (0..7).map(|n| (next + n).to_string()).collect();
        let lines: Vec<NewLine<'_>> = texts
            .iter()
            .map(|text| NewLine {
                at_ms: 1,
                stream: Stream::Stdout,
                source: "child",
                deployment: None,
                text,
                continues: false,
            })
            .collect();
        next += 7;
        let cursor = next.to_le_bytes();
        writer
            .append(
                &lines,
                &[CursorChange {
                    key: "n",
                    value: Some(&cursor),
                }],
            )
            .unwrap();
    }
}

#[test]
fn a_killed_writer_loses_and_repeats_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut follower = Reader::new(directory.path()).follow(0);
    let mut seen = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::child", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        while !output.next().unwrap().unwrap().contains("ready") {}
        let until = Instant::now() + Duration::from_micros(seed.rotate_left(round * 5) % 60_000);
        while Instant::now() < until {
            seen = follow(&mut follower, seen);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Every line that a follower saw is there after the recovery.
        seen = follow(&mut follower, seen);
        let writer = Writer::open(directory.path(), LIMITS).unwrap();
        let cursor = writer
            .cursor("n")
            .map_or(1, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        assert_eq!(writer.last_seq() + 1, cursor);
        seen = follow(&mut follower, seen);
        assert_eq!(seen, writer.last_seq());
    }
    let all = Reader::new(directory.path())
        .read(&Query {
            limit: usize::MAX,
            ..Query::default()
        })
        .unwrap();
    assert!(
        all.iter()
            .zip(1..)
            .all(|(line, n)| line.seq == n && line.text == n.to_string())
    );
}

fn follow(follower: &mut ferrovia_log::Follower, mut seen: u64) -> u64 {
    loop {
        let lines = follower.poll().unwrap();
        if lines.is_empty() {
            return seen;
        }
        for line in lines {
            assert_eq!((line.seq, line.text), (seen + 1, (seen + 1).to_string()));
            seen += 1;
        }
    }
}
