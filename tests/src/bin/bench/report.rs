//! Figures with their bounds, printed as they come and written as JSON.

use ferrovia_tests::Failure;
use ferrovia_tests::app::repository;
use serde::Serialize;

/// What a benchmark found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    /// The most that was promised.
    bound: Option<f64>,
}

impl Report {
    /// Prints a figure, with the bound that was promised for it, and keeps it.
    pub fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, bound: Option<f64>) {
        let what = what.into();
        let verdict = bound.map_or(String::new(), |bound| {
            let verdict = if value <= bound { "within" } else { "OVER" };
            format!("  {verdict} {bound}")
        });
        println!("  {what:60} {value:>12.3} {unit:8}{verdict}");
        self.figures.push(Figure {
            what,
            value,
            unit,
            bound,
        });
    }

    /// Writes `target/bench/NAME.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, name: &str) -> Result<(), Failure> {
        let dir = repository().join("target/bench");
        std::fs::create_dir_all(&dir)?;
        Ok(std::fs::write(
            dir.join(format!("{name}.json")),
            serde_json::to_vec_pretty(self)?,
        )?)
    }
}

/// The median; 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
