//! A build plan as a Dockerfile for BuildKit's built-in frontend. Pure: it decides nothing.
//!
//! A step is a stage. Build variables reach commands as secret mounts only; what stands in the file instead is a keyed
//! hash of those that a step sees, so that a changed value runs the step again. Caches are named by the service, so that
//! no two share one. The last stage starts from the runtime base: nothing of a step gets into it but what is copied, no
//! history and no environment either.

mod quote;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ferrovia_core::plan::{
    APP_DIRECTORY, Command, CopyFrom, Deploy, FileAsset, From, PORT_LABEL, PROCESSES_LABEL, Plan, PortPlan,
    Sharing, Step, USER_ID,
};
use ferrovia_core::settings::DEFAULT_PORT;
use ferrovia_core::tree::Hasher;

use quote::{exec_form, here_document, quoted, shell_word};

/// The stage that is the application's image: what is built.
pub const TARGET: &str = "ferrovia-image";
/// Where a Java trust store is made for the time of a command, in memory.
const TRUST_DIRECTORY: &str = "/run/ferrovia-trust";
/// The program that makes it.
const TRUST_PROGRAM: &str = "/opt/ferrovia/Trust.java";
const TRUST_SOURCE: &str = include_str!("Trust.java");

/// What a plan does not say.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Key of every base to the image that it is, pinned by digest.
    pub bases: &'a BTreeMap<String, String>,
    /// Names the service: first part of the id of every cache.
    pub cache_scope: &'a str,
    /// Names of the build variables, each handed in as a secret of the same id, with a keyed hash of its value.
    pub variables: &'a BTreeMap<String, String>,
    /// The extra certificate authority, if there is one.
    pub certificates: Option<Certificates<'a>>,
}

/// How the extra certificate authority is handed in.
#[derive(Debug, Clone, Copy)]
pub struct Certificates<'a> {
    /// Id of the secret.
    pub id: &'a str,
    /// Where the file is in a step.
    pub path: &'a str,
    /// Environment variables that name the file.
    pub variables: &'a [&'a str],
}

/// A Dockerfile, and what of the tree it must not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// To be built with the target [`TARGET`].
    pub dockerfile: String,
    /// To lie beside it as `Dockerfile.dockerignore`.
    pub ignore: String,
}

/// A plan names a base that was not resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the base `{0}` was not resolved")]
pub struct UnknownBase(pub String);

/// Renders a plan that was checked.
///
/// # Errors
/// [`UnknownBase`] when the options do not name an image for one of its bases.
pub fn render(plan: &Plan, options: &Options<'_>) -> Result<Rendered, UnknownBase> {
    let mut renderer = Renderer {
        plan,
        options,
        text: "# check=skip=all\n".to_owned(),
    };
    for step in &plan.steps {
        renderer.step(step)?;
    }
    renderer.deploy(&plan.deploy)?;
    let mut ignore = plan.ignore.join("\n");
    ignore.push('\n');
    Ok(Rendered {
        dockerfile: renderer.text,
        ignore,
    })
}

/// Names of variables that a command could not do without its own value of.
const KEPT_VARIABLES: &[&str] = &["PATH", "HOME"];

struct Renderer<'a> {
    plan: &'a Plan,
    options: &'a Options<'a>,
    text: String,
}

impl Renderer<'_> {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    fn base(&self, key: &str) -> Result<String, UnknownBase> {
        self.options
            .bases
            .get(key)
            .cloned()
            .ok_or_else(|| UnknownBase(key.to_owned()))
    }

    /// The key of the base that a step stands on, through the steps between.
    fn root_base<'b>(&'b self, step: &'b Step) -> &'b str {
        let mut from = &step.from;
        for _ in 0..=self.plan.steps.len() {
            match from {
                From::Image(key) => return key,
                From::Step(name) => match self.plan.steps.iter().find(|step| step.name == *name) {
                    Some(step) => from = &step.from,
                    None => break,
                },
            }
        }
        ""
    }

    fn step(&mut self, step: &Step) -> Result<(), UnknownBase> {
        let from = match &step.from {
            From::Image(key) => self.base(key)?,
            From::Step(name) => name.clone(),
        };
        let is_first = matches!(step.from, From::Image(_));
        self.line(format!("\nFROM {from} AS {}", step.name));
        let java = self.root_base(step).starts_with("java:") && self.options.certificates.is_some();
        if is_first {
            self.line(format!("WORKDIR {APP_DIRECTORY}"));
            self.line(format!("SHELL {}", exec_form(&["/bin/sh", "-ec"])));
            if let Some(certificates) = self.options.certificates {
                for name in certificates.variables {
                    self.line(format!("ENV {name}={}", quoted(certificates.path)));
                }
            }
            if java {
                self.file(TRUST_PROGRAM, TRUST_SOURCE, false);
                let store = format!(
                    "-Djavax.net.ssl.trustStore={TRUST_DIRECTORY}/store.p12 -Djavax.net.ssl.trustStorePassword=changeit"
                );
                self.line(format!("ENV JAVA_TOOL_OPTIONS={}", quoted(&store)));
            }
        }
        for (name, value) in &step.variables {
            self.line(format!("ENV {name}={}", quoted(value)));
        }
        let mut told = false;
        for command in &step.commands {
            if matches!(command, Command::Exec(_) | Command::Shell(_)) && !told {
                told = true;
                if let Some(hash) = self.variables_hash(step) {
                    self.line(format!("ENV FERROVIA_BUILD_VARIABLES={}", quoted(&hash)));
                }
            }
            self.command(step, command, java);
        }
        Ok(())
    }

    fn command(&mut self, step: &Step, command: &Command, java: bool) {
        match command {
            Command::Exec(arguments) if java => {
                let words: Vec<_> = arguments.iter().map(|word| shell_word(word)).collect();
                self.script(step, &words.join(" "), true);
            }
            Command::Exec(arguments) => {
                let mounts = self.mounts(step, false);
                self.line(format!("RUN {mounts}{}", exec_form(arguments)));
            }
            Command::Shell(script) => self.script(step, script, java),
            Command::Copy { from, paths, to } => {
                let from = match from {
                    CopyFrom::Source => String::new(),
                    CopyFrom::Step(name) => format!("--from={name} "),
                };
                let to = format!("{}/", to.trim_end_matches('/'));
                // `--parents` keeps each path; it does not take the whole tree.
                let (all, some): (Vec<_>, Vec<_>) = paths.iter().cloned().partition(|path| path == ".");
                for (flags, mut arguments) in [("", all), ("--parents ", some)] {
                    if !arguments.is_empty() {
                        arguments.push(to.clone());
                        self.line(format!("COPY {from}{flags}{}", exec_form(&arguments)));
                    }
                }
            }
            Command::Path(directory) => self.line(format!("ENV PATH=\"{directory}:$PATH\"")),
            Command::File(FileAsset {
                path,
                content,
                executable,
            }) => {
                self.file(path, content, *executable);
            }
        }
    }

    /// A command of one line stands as it is, so that people recognise it in the log; others as here-documents.
    fn script(&mut self, step: &Step, script: &str, java: bool) {
        let mounts = self.mounts(step, java);
        let trust = self.options.certificates.filter(|_| java).map(|certificates| {
            format!(
                "java -XX:TieredStopAtLevel=1 {TRUST_PROGRAM} {} {TRUST_DIRECTORY}/store.p12",
                shell_word(certificates.path)
            )
        });
        let is_plain = !script.contains('\n')
            && !script.contains("<<")
            && !script.ends_with('\\')
            && !script.starts_with(['[', '-', '#'])
            && trust.is_none();
        if is_plain {
            self.line(format!("RUN {mounts}{script}"));
            return;
        }
        // BuildKit shows the first line as the name of the command.
        let first = script
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches(['#', ' ']);
        let script = match trust {
            Some(trust) => format!("# {first}\n{trust}\n{script}"),
            None => script.to_owned(),
        };
        let document = here_document(&script);
        self.line(format!("RUN {mounts}{document}"));
    }

    /// The flag sets the mode of directories that are made on the way too, so the usual mode goes without.
    fn file(&mut self, path: &str, content: &str, executable: bool) {
        let (begin, body) = quote::here_document_parts(content);
        let mode = if executable { "--chmod=0755 " } else { "" };
        self.line(format!("COPY {mode}{begin} {path}\n{body}"));
    }

    /// The flags of everything that is mounted for a command, with a space behind.
    fn mounts(&self, step: &Step, java: bool) -> String {
        let mut flags = Vec::new();
        for cache in &step.caches {
            let sharing = match cache.sharing {
                Sharing::Shared => "shared",
                Sharing::Locked => "locked",
            };
            let id = format!("{}/{}", self.options.cache_scope, cache.name);
            flags.push(format!(
                "--mount=type=cache,id={id},target={},sharing={sharing}",
                cache.directory
            ));
        }
        for name in self.visible(step) {
            flags.push(format!("--mount=type=secret,id={name},env={name}"));
        }
        if let Some(certificates) = self.options.certificates {
            flags.push(format!(
                "--mount=type=secret,id={},target={}",
                certificates.id, certificates.path
            ));
        }
        if java {
            flags.push(format!("--mount=type=tmpfs,target={TRUST_DIRECTORY}"));
        }
        flags.iter().map(|flag| format!("{flag} ")).collect()
    }

    fn visible<'b>(&'b self, step: &'b Step) -> impl Iterator<Item = &'b str> {
        let names = self.options.variables.keys().map(String::as_str);
        names.filter(|name| step.secrets.sees(name) && !KEPT_VARIABLES.contains(name))
    }

    /// Stands for the values that a step sees.
    fn variables_hash(&self, step: &Step) -> Option<String> {
        let mut hasher = Hasher::new();
        let mut any = false;
        for name in self.visible(step) {
            any = true;
            for text in [name, self.options.variables[name].as_str()] {
                hasher.update(&(text.len() as u64).to_be_bytes());
                hasher.update(text.as_bytes());
            }
        }
        any.then(|| hasher.finish().hex())
    }

    fn deploy(&mut self, deploy: &Deploy) -> Result<(), UnknownBase> {
        let from = self.base(&deploy.base)?;
        self.line(format!("\nFROM {from} AS {TARGET}"));
        let packages = if deploy.packages.is_empty() {
            String::new()
        } else {
            let names = deploy.packages.join(" ");
            format!(
                "apt-get update\napt-get install --yes --no-install-recommends {names}\nrm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log\n"
            )
        };
        let script = format!(
            "# a user for the application\nset -e\n{packages}getent group {USER_ID} > /dev/null || groupadd --gid {USER_ID} app\n\
             getent passwd {USER_ID} > /dev/null || useradd --uid {USER_ID} --gid {USER_ID} --home-dir {APP_DIRECTORY} \
             --no-create-home --shell /usr/sbin/nologin app\n\
             install -d -o {USER_ID} -g {USER_ID} {APP_DIRECTORY}"
        );
        self.line(format!("RUN {}", here_document(&script)));
        for input in &deploy.inputs {
            let owner = if is_below_app(&input.to) {
                format!("--chown={USER_ID}:{USER_ID} ")
            } else {
                String::new()
            };
            let exclude: String = input
                .exclude
                .iter()
                .map(|pattern| format!("--exclude={pattern} "))
                .collect();
            let paths = exec_form(&[input.from.clone(), input.to.clone()]);
            self.line(format!("COPY --from={} {owner}{exclude}{paths}", input.step));
        }
        for FileAsset {
            path,
            content,
            executable,
        } in &deploy.files
        {
            self.file(path, content, *executable);
        }
        for (name, value) in &deploy.variables {
            self.line(format!("ENV {name}={}", quoted(value)));
        }
        if !deploy.paths.is_empty() {
            self.line(format!("ENV PATH=\"{}:$PATH\"", deploy.paths.join(":")));
        }
        self.line(format!("WORKDIR {APP_DIRECTORY}"));
        self.line(format!("USER {USER_ID}:{USER_ID}"));
        match deploy.port {
            // Beside what the base may expose: an application that is given a port listens there.
            PortPlan::Web => self.line(format!("EXPOSE {DEFAULT_PORT}")),
            PortPlan::None => self.line(format!("LABEL {PORT_LABEL}=none")),
        }
        if !deploy.processes.is_empty() {
            let json = serde_json::to_string(&deploy.processes).unwrap_or_default();
            self.line(format!("LABEL {PROCESSES_LABEL}={}", quoted(&json)));
        }
        if let Some(signal) = &deploy.stop_signal {
            self.line(format!("STOPSIGNAL {signal}"));
        }
        self.line("ENTRYPOINT []");
        if let Some(start) = &deploy.start {
            self.line(format!("CMD {}", exec_form(start)));
        }
        Ok(())
    }
}

fn is_below_app(path: &str) -> bool {
    path.strip_prefix(APP_DIRECTORY)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
