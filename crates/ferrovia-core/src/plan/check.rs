//! What is checked before anything is built, so that a mistake costs no build.

use std::collections::BTreeSet;

use crate::bases;
use crate::error::Report;

use super::{Command, CopyFrom, FORMAT, From, Plan};

impl Plan {
    /// Checks that the plan can be built: known bases and steps, each step after what it needs (so there are no
    /// cycles), something to run, and a start command unless the instance has one of its own.
    ///
    /// # Errors
    /// A [`Report`] with the code `no_start_command` or `plan_invalid`.
    pub fn check(&self, has_start_command: bool) -> Result<(), Report> {
        if self.format != FORMAT {
            return Err(invalid(format!(
                "the plan has format {}, this version reads {FORMAT}",
                self.format
            )));
        }
        let mut known = BTreeSet::new();
        for step in &self.steps {
            let name = &step.name;
            match &step.from {
                From::Image(base) => check_base(base)?,
                From::Step(other) => check_step(&known, name, other)?,
            }
            for command in &step.commands {
                match command {
                    Command::Copy {
                        from: CopyFrom::Step(other),
                        ..
                    } => check_step(&known, name, other)?,
                    Command::Copy { paths, .. } if paths.is_empty() => {
                        return Err(invalid(format!("step `{name}` copies nothing")));
                    }
                    Command::Exec(arguments) if arguments.is_empty() => {
                        return Err(invalid(format!("step `{name}` runs an empty command")));
                    }
                    _ => {}
                }
            }
            let proper = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            if !proper || !known.insert(name.as_str()) {
                return Err(invalid(format!("`{name}` is not a name for one step")));
            }
        }
        check_base(&self.deploy.base)?;
        for input in &self.deploy.inputs {
            check_step(&known, "deploy", &input.step)?;
        }
        if self.deploy.inputs.is_empty() {
            return Err(invalid("nothing gets into the application's image".to_owned()));
        }
        match &self.deploy.start {
            Some(start) if start.is_empty() => Err(invalid("the start command is empty".to_owned())),
            None if !has_start_command => Err(no_start(&self.provider)),
            _ => Ok(()),
        }
    }
}

fn check_base(key: &str) -> Result<(), Report> {
    match bases::find(key) {
        Some(_) => Ok(()),
        None => Err(invalid(format!("`{key}` is not a base"))),
    }
}

fn check_step(known: &BTreeSet<&str>, name: &str, other: &str) -> Result<(), Report> {
    if known.contains(other) {
        return Ok(());
    }
    Err(invalid(format!(
        "`{name}` needs step `{other}`, which does not come before it"
    )))
}

fn invalid(message: String) -> Report {
    Report::new("plan_invalid", message)
        .with_hint("this is a mistake in Ferrovia; bring a `Dockerfile` meanwhile")
}

/// No start command was found, with what each kind of application can do about it.
fn no_start(provider: &str) -> Report {
    let remedy = match provider {
        "node" => "add a `start` script to `package.json`, a file `server.js` or `index.js`, ",
        "python" => "add a file `main.py` or `app.py`, ",
        "go" => "add a `main` package in the root or in `cmd/NAME`, ",
        "rust" => "add a binary (`src/main.rs`), ",
        "java" => "add a main class (`spring-boot-maven-plugin`, or `mainClass` in the manifest), ",
        _ => "",
    };
    Report::new(
        "no_start_command",
        format!("nothing says how to start this {provider} application"),
    )
    .with_hint(format!(
        "{remedy}a `Procfile` with a line `web: COMMAND`, or set a start command"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{Deploy, PortPlan, Step};
    use super::*;

    fn plan(steps: Vec<Step>) -> Plan {
        let mut deploy = Deploy::new("debian:trixie".to_owned()).input("build", "/app", &[]);
        deploy.start = Some(vec!["true".to_owned()]);
        assert_eq!(deploy.port, PortPlan::Web);
        Plan {
            format: FORMAT,
            provider: "go".to_owned(),
            versions: vec![],
            ignore: vec![],
            steps,
            deploy,
        }
    }

    fn build() -> Step {
        Step::new("build", From::Image("go:1.24".to_owned())).exec(["true"])
    }

    #[test]
    fn a_good_plan_passes() {
        plan(vec![build()]).check(false).unwrap();
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let step = |name: &str, from: &str| Step::new(name, From::Step(from.to_owned()));
        for steps in [
            vec![],
            vec![build(), build()],
            vec![step("build", "build")],
            vec![step("a", "build"), build()],
            vec![step("build", "a"), step("a", "build")],
            vec![Step::new("build", From::Image("windows:95".to_owned()))],
            vec![build(), Step::new("Bad Name", From::Step("build".to_owned()))],
            vec![Step {
                commands: vec![Command::Exec(vec![])],
                ..build()
            }],
        ] {
            assert_eq!(
                plan(steps.clone()).check(false).unwrap_err().code,
                "plan_invalid",
                "{steps:?}"
            );
        }
    }

    #[test]
    fn a_start_command_is_needed_unless_the_instance_has_one() {
        let mut plan = plan(vec![build()]);
        plan.deploy.start = None;
        assert_eq!(plan.check(false).unwrap_err().code, "no_start_command");
        plan.check(true).unwrap();
    }
}
