//! Java with Maven: Spring Boot, Quarkus, shaded and plain jars.
//!
//! The build leaves `app.jar` (and `lib/` for a plain jar, or Quarkus' directory) in `/app`; the script that finds the
//! jar runs in the build, since only Maven knows what it is called.

use std::collections::BTreeMap;

use roxmltree::{Document, Node};

use crate::error::Report;
use crate::plan::{Deploy, From, Plan, Secrets, Sharing, Step};
use crate::versions::VersionRequest;

use super::choose::{Found, Reason};
use super::view::{SourceView, is_foreign};
use super::{Context, deploy, shell, unreadable_manifest};

/// Where Maven keeps what it fetched.
const REPOSITORY: &str = "/opt/maven-repository";

/// One `pom.xml`.
#[derive(Debug, Clone, Default)]
struct Pom {
    packaging: String,
    properties: BTreeMap<String, String>,
    /// Artifact ids of plugins that are used, with a main class if one is configured.
    plugins: BTreeMap<String, Option<String>>,
    release: Option<String>,
}

/// How an application is started.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    SpringBoot,
    Quarkus,
    /// One jar with everything in it.
    Shaded,
    /// A jar and its dependencies beside it; the main class, unless the manifest has it.
    Plain(Option<String>),
}

/// The module that is the application.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Application {
    /// Its directory; empty: the root.
    directory: String,
    kind: Kind,
}

impl Pom {
    fn read(view: &SourceView, path: &str) -> Result<Option<Self>, Report> {
        let Some(text) = view.text(path) else {
            return Ok(None);
        };
        let document = Document::parse(text).map_err(|error| unreadable_manifest(path, error))?;
        let project = document.root_element();
        let text = |node: Option<Node<'_, '_>>| {
            node.and_then(|node| node.text())
                .map(|text| text.trim().to_owned())
        };
        let mut pom = Self {
            packaging: text(child(project, "packaging")).unwrap_or_else(|| "jar".to_owned()),
            ..Self::default()
        };
        for property in child(project, "properties")
            .into_iter()
            .flat_map(|node| node.children())
            .filter(Node::is_element)
        {
            let value = property.text().unwrap_or_default().trim().to_owned();
            pom.properties
                .insert(property.tag_name().name().to_owned(), value);
        }
        let plugins = child(project, "build").and_then(|build| child(build, "plugins"));
        for plugin in plugins
            .into_iter()
            .flat_map(|node| node.children())
            .filter(Node::is_element)
        {
            let Some(name) = text(child(plugin, "artifactId")) else {
                continue;
            };
            let find = |tag: &str| {
                plugin
                    .descendants()
                    .find(|node| node.has_tag_name(tag) || node.tag_name().name() == tag)
            };
            let main = text(find("mainClass").or_else(|| find("Main-Class")));
            if name == "maven-compiler-plugin" {
                pom.release = text(find("release").or_else(|| find("source")));
            }
            pom.plugins.insert(name, main);
        }
        Ok(Some(pom))
    }

    /// A text with `${property}` replaced, if it is nothing but that.
    fn value(&self, text: &str) -> Option<String> {
        match text.strip_prefix("${").and_then(|text| text.strip_suffix('}')) {
            Some(name) => self.properties.get(name).cloned(),
            None => Some(text.to_owned()),
        }
    }

    fn main_class(&self) -> Option<String> {
        let configured = self.plugins.values().flatten().find_map(|text| self.value(text));
        let named = || {
            ["start-class", "exec.mainClass", "mainClass", "main.class"]
                .iter()
                .find_map(|key| self.properties.get(*key))
                .cloned()
        };
        configured.or_else(named)
    }

    fn kind(&self, view: &SourceView, directory: &str) -> Option<Kind> {
        let uses = |name: &str| self.plugins.contains_key(name);
        if self.packaging == "pom" {
            return None;
        }
        if uses("spring-boot-maven-plugin") {
            return Some(Kind::SpringBoot);
        }
        if uses("quarkus-maven-plugin") {
            return Some(Kind::Quarkus);
        }
        if uses("maven-shade-plugin") || uses("maven-assembly-plugin") {
            return Some(Kind::Shaded);
        }
        let main = self.main_class().or_else(|| only_main(view, directory));
        main.map(|main| Kind::Plain(Some(main)))
    }
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children()
        .find(|child| child.is_element() && child.tag_name().name() == name)
}

/// The only class with a `main` method in a module's sources.
fn only_main(view: &SourceView, directory: &str) -> Option<String> {
    let root = if directory.is_empty() {
        "src/main/java".to_owned()
    } else {
        format!("{directory}/src/main/java")
    };
    let has_main = |path: &&str| {
        let text = view.text(path).unwrap_or_default();
        path.ends_with(".java") && (text.contains("static void main(") || text.contains("static void main ("))
    };
    let mut found = view.below(&root).filter(has_main);
    let path = found.next()?;
    if found.next().is_some() {
        return None;
    }
    Some(path[root.len() + 1..].trim_end_matches(".java").replace('/', "."))
}

/// All poms of a tree, by directory.
fn poms(view: &SourceView) -> Result<BTreeMap<String, Pom>, Report> {
    let mut poms = BTreeMap::new();
    for path in view.paths() {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == "pom.xml"
            && !directory.split('/').any(is_foreign)
            && let Some(pom) = Pom::read(view, path)?
        {
            poms.insert(directory.to_owned(), pom);
        }
    }
    Ok(poms)
}

/// The module that is the application: the root, else the first that can be started, Spring Boot and Quarkus first.
fn application(view: &SourceView, poms: &BTreeMap<String, Pom>) -> Option<Application> {
    let all = poms.iter().filter_map(|(directory, pom)| {
        let kind = pom.kind(view, directory)?;
        Some(Application {
            directory: directory.clone(),
            kind,
        })
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|application| {
        (
            application.directory.matches('/').count(),
            matches!(application.kind, Kind::Plain(_)),
        )
    });
    let root = all
        .iter()
        .position(|application| application.directory.is_empty());
    (!all.is_empty()).then(|| all.swap_remove(root.unwrap_or(0)))
}

pub(super) fn find(view: &SourceView) -> Option<Found> {
    if !view.has("pom.xml") {
        return None;
    }
    let application = application(view, &poms(view).unwrap_or_default());
    let what = application.as_ref().map(|application| match &application.kind {
        Kind::SpringBoot => "Spring Boot".to_owned(),
        Kind::Quarkus => "Quarkus".to_owned(),
        Kind::Shaded => "a jar with everything in it".to_owned(),
        Kind::Plain(main) => main
            .as_ref()
            .map_or(String::new(), |main| format!("main class `{main}`")),
    });
    let reason = Reason::new("pom.xml", what.unwrap_or_default());
    Some(Found {
        reasons: vec![reason],
        manifest: true,
        start: application.is_some(),
    })
}

pub(super) fn plan(context: &mut Context<'_>) -> Result<Plan, Report> {
    let view = context.view;
    let poms = poms(view)?;
    let Some(root) = poms.get("") else {
        return Err(unreadable_manifest("pom.xml", "it is not there"));
    };
    let line = context.pin("java", &versions(context, root))?;
    let application = match (application(view, &poms), root.packaging.as_str()) {
        (Some(application), _) => Some(application),
        (None, "war") => {
            return Err(Report::new(
                "war_unsupported",
                "`pom.xml` builds a war, which needs an application server",
            )
            .with_hint("build a jar with an embedded server, or bring a `Dockerfile`"));
        }
        (None, _) => None,
    };
    let maven = maven(context);
    let mut step = Step::new("build", From::Image(format!("java:{line}")))
        .cache("maven", REPOSITORY, Sharing::Locked)
        // Maven is over before the second compiler would pay.
        .variables(&[("MAVEN_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")])
        .source(["."])
        .secrets(Secrets::All);
    if let Some(command) = &context.settings.install_command {
        step = step.shell(command);
    }
    let plain = application
        .as_ref()
        .is_some_and(|application| matches!(application.kind, Kind::Plain(_)));
    let package = if plain {
        format!(
            "{maven} -DskipTests package dependency:copy-dependencies -DincludeScope=runtime \
             \"-DoutputDirectory=$PWD/.ferrovia/lib\""
        )
    } else {
        format!("{maven} -DskipTests package")
    };
    let mut scripts = match &context.settings.build_command {
        None => vec![package],
        Some(command) if plain => vec![command.clone(), package],
        Some(command) => vec![command.clone()],
    };
    scripts.extend(application.as_ref().map(collect_script));
    // One script: with an extra authority each one makes a trust store for itself.
    step = step.shell(scripts.join("\n"));
    let mut deploy = Deploy::new(format!("java-runtime:{line}"));
    if let Some(application) = &application {
        deploy = match application.kind {
            Kind::Quarkus => deploy.input_to("build", "/app/.ferrovia", "/app", &[]),
            _ => deploy
                .input_to("build", "/app/.ferrovia/lib", "/app/lib", &[])
                .input_to("build", "/app/.ferrovia/app.jar", "/app/app.jar", &[]),
        };
        deploy.start = Some(start(application));
    } else {
        deploy = deploy.input("build", "/app", &[".git"]);
    }
    if !context.procfile.processes.is_empty() {
        // Its commands name the jar by its own path.
        deploy = deploy.input(
            "build",
            "/app",
            &[".git", "**/classes", "**/generated-sources", "**/maven-status"],
        );
    }
    Ok(context.plan("java", vec![step], deploy, deploy::as_it_stands))
}

/// What asks for a version of Java. Java runs what older versions compiled, so all are the least.
fn versions(context: &Context<'_>, root: &Pom) -> Vec<VersionRequest> {
    let least = |text: String, source: &str| {
        let text = text.trim_start_matches("1.8").trim();
        VersionRequest::at_least(if text.is_empty() { "8" } else { text }, source)
    };
    let mut requests = Vec::new();
    requests.extend(
        context
            .version_file(".java-version")
            .map(|request| least(request.text, ".java-version")),
    );
    let properties = context.view.text("system.properties").unwrap_or_default();
    let runtime = properties
        .lines()
        .find_map(|line| line.trim().strip_prefix("java.runtime.version="));
    requests.extend(runtime.map(|text| least(text.to_owned(), "system.properties > java.runtime.version")));
    for key in ["maven.compiler.release", "java.version", "maven.compiler.source"] {
        if let Some(text) = root.properties.get(key).and_then(|text| root.value(text)) {
            requests.push(least(text, &format!("pom.xml > properties > {key}")));
        }
    }
    let release = root.release.as_ref().and_then(|text| root.value(text));
    requests.extend(release.map(|text| least(text, "pom.xml > maven-compiler-plugin > release")));
    requests
}

/// The command that runs Maven: the wrapper if it is whole.
fn maven(context: &mut Context<'_>) -> String {
    let whole = context.view.has(".mvn/wrapper/maven-wrapper.properties");
    let program = if context.view.has("mvnw") && whole {
        "sh ./mvnw"
    } else {
        if context.view.has("mvnw") {
            context.warn(
                "maven_wrapper_incomplete",
                "`mvnw` is there without `.mvn/wrapper/maven-wrapper.properties`, so the builder's own Maven runs",
                "run `mvn wrapper:wrapper` and commit what it writes",
            );
        }
        "mvn"
    };
    format!("{program} -B -ntp -Dmaven.repo.local={REPOSITORY}")
}

/// The script that puts what is started into `.ferrovia`.
fn collect_script(application: &Application) -> String {
    let directory = if application.directory.is_empty() {
        "."
    } else {
        &application.directory
    };
    let target = shell::quoted(&format!("{directory}/target"));
    if application.kind == Kind::Quarkus {
        return format!(
            "mkdir -p .ferrovia\nif [ -d {target}/quarkus-app ]; then cp -r {target}/quarkus-app/. .ferrovia/; \
             else cp {target}/*-runner.jar .ferrovia/quarkus-run.jar; fi"
        );
    }
    format!("target={target}\n{FIND_JAR}")
}

/// Of the jars that Maven left, the one with everything in it.
const FIND_JAR: &str = r#"mkdir -p .ferrovia/lib
jars=$(find "$target" -maxdepth 1 -name '*.jar' ! -name 'original-*' ! -name '*-sources.jar' ! -name '*-javadoc.jar' ! -name '*-tests.jar' ! -name '*-plain.jar' | sort)
jar=$(echo "$jars" | grep -e '-jar-with-dependencies.jar$' -e '-shaded.jar$' -e '-all.jar$' -e '-fat.jar$' | head -n 1 || true)
[ -n "$jar" ] || jar=$(echo "$jars" | head -n 1)
[ -n "$jar" ] || { echo "ERROR: Maven left no jar in $target"; exit 1; }
cp "$jar" .ferrovia/app.jar"#;

fn start(application: &Application) -> Vec<String> {
    let java = "exec java -XX:MaxRAMPercentage=75 $JAVA_OPTS";
    shell::shell_command(&match &application.kind {
        Kind::SpringBoot => format!("{java} -Dserver.port=${{PORT:-8080}} -jar app.jar"),
        Kind::Quarkus => {
            format!(
                "{java} -Dquarkus.http.host=0.0.0.0 -Dquarkus.http.port=${{PORT:-8080}} -jar quarkus-run.jar"
            )
        }
        Kind::Shaded | Kind::Plain(None) => format!("{java} -jar app.jar"),
        Kind::Plain(Some(main)) => format!("{java} -cp 'app.jar:lib/*' {}", shell::quoted(main)),
    })
}
