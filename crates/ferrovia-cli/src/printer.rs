//! The one place that writes to the terminal: data to stdout, talk to stderr, no colour when piped.

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use ferrovia_api::Report;
use serde::Serialize;

use crate::failure::Failure;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = Style::new()
    .bold()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
const YELLOW: Style = Style::new()
    .bold()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
const GREEN: Style = Style::new()
    .bold()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));

/// Writes what a command has to say.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    json: bool,
}

impl Printer {
    /// A printer; with `json` data is JSON.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether data is JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether somebody looks at stderr and can be asked on stdin.
    pub fn is_terminal(&self) -> bool {
        std::io::stderr().is_terminal() && std::io::stdin().is_terminal()
    }

    /// One line of talk.
    pub fn say(&self, text: impl AsRef<str>) {
        // A closed stderr is nobody's loss.
        let _ = writeln!(anstream::stderr(), "{}", text.as_ref());
    }

    /// One line of talk that matters less.
    pub fn murmur(&self, text: impl AsRef<str>) {
        self.say(format!("{DIM}{}{DIM:#}", text.as_ref()));
    }

    /// One line of talk that something went well.
    pub fn cheer(&self, text: impl AsRef<str>) {
        self.say(format!("{GREEN}{}{GREEN:#}", text.as_ref()));
    }

    /// A doubt, with its remedy.
    pub fn warning(&self, report: &Report) {
        self.say(format!("{YELLOW}warning:{YELLOW:#} {}", report.message));
        self.hint(report);
    }

    /// A failure, with its remedy; with `--json` on stdout too.
    pub fn failure(&self, failure: &Failure) {
        if self.json && !failure.told {
            self.json(&serde_json::json!({ "error": failure.report }));
        }
        self.error(&failure.report);
    }

    /// What went wrong, with the last lines of the log and the remedy.
    pub fn error(&self, report: &Report) {
        for line in &report.log {
            self.murmur(format!("  | {line}"));
        }
        self.say(format!("{RED}error:{RED:#} {}", report.message));
        self.hint(report);
    }

    fn hint(&self, report: &Report) {
        if let Some(hint) = &report.hint {
            self.say(format!("{BOLD}hint:{BOLD:#} {hint}"));
        }
    }

    /// One line of data for people, byte for byte; nothing with `--json`.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            put(std::io::stdout(), text.as_ref());
        }
    }

    /// A value as JSON with `--json`, else whatever `human` makes of it, with our styles.
    pub fn value<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) {
        if self.json {
            self.json(value);
        } else {
            let text = human(value);
            if !text.is_empty() {
                put(anstream::stdout(), &text);
            }
        }
    }

    /// One JSON value on one line.
    pub fn json<T: Serialize>(&self, value: &T) {
        if let Ok(text) = serde_json::to_string(value) {
            put(std::io::stdout(), &text);
        }
    }

    /// A bold piece of text.
    pub fn bold(text: &str) -> String {
        format!("{BOLD}{text}{BOLD:#}")
    }
}

/// One line of data. `anstream` takes our own styles away when piped, and with them whatever looks like one: what came
/// from an application or a user goes past it.
fn put(mut out: impl Write, text: &str) {
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        // `ferrovia logs | head` ends the reader: nothing more is wanted of us either.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        let _ = writeln!(std::io::stderr(), "error: the output cannot be written: {error}");
        std::process::exit(1);
    }
}

/// A table of texts for people: columns by two blanks, no lines.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(head.iter().map(|head| head.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// How long ago or how long, in words that fit a table.
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}
