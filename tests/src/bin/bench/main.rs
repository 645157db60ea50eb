//! Benchmarks of the whole platform, each side by side with its peer in one run: `script/bench [NAME]`.

mod deploy;
mod environments;
mod idle;
mod report;

use std::process::ExitCode;

use ferrovia_tests::Failure;
use report::Report;

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = match names.is_empty() {
        true => vec!["deploy", "idle", "environments"],
        false => names.iter().map(String::as_str).collect(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    for name in names {
        println!("\n{name}");
        match runtime.block_on(bench(name)) {
            Ok(report) => {
                if let Err(error) = report.write(name) {
                    eprintln!("error: {error}");
                    return ExitCode::FAILURE;
                }
            }
            Err(error) => {
                eprintln!("error: {name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

async fn bench(name: &str) -> Result<Report, Failure> {
    match name {
        "deploy" => deploy::run().await,
        "idle" => idle::run().await,
        "environments" => environments::run().await,
        _ => Err("there is no such benchmark; there are: deploy, idle, environments".into()),
    }
}
