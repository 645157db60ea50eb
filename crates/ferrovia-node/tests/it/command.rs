//! Programs of the host.

use std::io::Write;
use std::process::{Command, Output, Stdio};

pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs a program that must succeed; what it printed.
pub fn must(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(must_bytes(program, arguments)).unwrap()
}

pub fn must_bytes(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Runs a program with this on its standard input, which must succeed.
pub fn must_take(program: &str, arguments: &[&str], input: &[u8]) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    assert!(child.wait().unwrap().success(), "{program} {arguments:?}");
}
