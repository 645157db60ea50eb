//! A table of figures with their bounds, printed and written as JSON.

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
    /// Adds a figure, with the bound that was promised for it.
    pub fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, bound: Option<f64>) {
        self.figures.push(Figure {
            what: what.into(),
            value,
            unit,
            bound,
        });
    }

    /// Prints the table and writes `target/bench/NAME.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn print_and_write(&self, name: &str) -> Result<(), Failure> {
        println!("\n{name}");
        for figure in &self.figures {
            let bound = figure.bound.map_or(String::new(), |bound| {
                let verdict = if figure.value <= bound { "within" } else { "OVER" };
                format!("  {verdict} {bound}")
            });
            println!(
                "  {:60} {:>12.3} {:8}{bound}",
                figure.what, figure.value, figure.unit
            );
        }
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
