//! Frameworks: what their build leaves, and how that is served or started.
//!
//! What a framework leaves as files is served as files, also when the `start` script is its development or preview
//! server; a start script of the project's own wins.

use crate::detect::static_site::Fallback;
use crate::detect::view::SourceView;

use super::package::Package;

/// A framework in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Framework {
    pub(super) name: &'static str,
    pub(super) output: Output,
    /// Builds it when there is no build script.
    pub(super) build: &'static str,
    /// Directories below the application's that are kept between builds.
    pub(super) caches: &'static [&'static str],
    pub(super) build_variables: &'static [(&'static str, &'static str)],
    pub(super) variables: &'static [(&'static str, &'static str)],
}

/// What a build leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// Files in a directory.
    Static { directory: String, fallback: Fallback },
    /// A server, and what starts it.
    Server(String),
}

const HOST: &[(&str, &str)] = &[("HOST", "0.0.0.0")];

/// The framework of a package, if it is a known one.
pub(super) fn find(view: &SourceView, package: &Package) -> Option<Framework> {
    let base = Framework {
        name: "",
        output: Output::Server(String::new()),
        build: "",
        caches: &["node_modules/.cache"],
        build_variables: &[],
        variables: &[],
    };
    let files = |directory: &str, fallback| Output::Static {
        directory: directory.to_owned(),
        fallback,
    };
    let server = |command: &str| Output::Server(command.to_owned());
    let config = |name: &str| config(view, name);
    let build_script = package.scripts.get("build").map_or("", String::as_str);
    let has = |name| package.has(name);

    if has("next") {
        let config = config("next").unwrap_or_default();
        let exports = value_of(&config, "output").as_deref() == Some("export");
        let directory = value_of(&config, "distDir")
            .filter(|_| exports)
            .unwrap_or_else(|| "out".to_owned());
        let output = if exports {
            files(&directory, Fallback::NotFound)
        } else {
            server("next start")
        };
        let build_variables = &[("NEXT_TELEMETRY_DISABLED", "1")];
        return Some(Framework {
            name: "Next.js",
            output,
            build: "next build",
            caches: &[".next/cache"],
            build_variables,
            ..base
        });
    }
    if has("nuxt") || has("nuxt3") {
        let generates = build_script.contains("generate");
        let output = if generates {
            files(".output/public", Fallback::NotFound)
        } else {
            server("node .output/server/index.mjs")
        };
        let build_variables = &[("NUXT_TELEMETRY_DISABLED", "1")];
        return Some(Framework {
            name: "Nuxt",
            output,
            build: "nuxt build",
            build_variables,
            variables: HOST,
            ..base
        });
    }
    if has("@sveltejs/kit") {
        let config = config("svelte").unwrap_or_default();
        let output = if has("@sveltejs/adapter-static") {
            let fallback = if config.contains("fallback") {
                Fallback::Index
            } else {
                Fallback::NotFound
            };
            files("build", fallback)
        } else {
            server("node build")
        };
        // With this, adapter-auto takes adapter-node.
        let build_variables = if has("@sveltejs/adapter-auto") {
            &[("GCP_BUILDPACKS", "true")][..]
        } else {
            &[]
        };
        return Some(Framework {
            name: "SvelteKit",
            output,
            build: "vite build",
            build_variables,
            variables: HOST,
            ..base
        });
    }
    if has("astro") {
        let config = config("astro").unwrap_or_default();
        let serves =
            value_of(&config, "output").is_some_and(|o| o != "static") || config.contains("adapter:");
        let output = if serves {
            server("node ./dist/server/entry.mjs")
        } else {
            files("dist", Fallback::NotFound)
        };
        let build_variables = &[("ASTRO_TELEMETRY_DISABLED", "1")];
        let caches = &["node_modules/.astro"];
        return Some(Framework {
            name: "Astro",
            output,
            build: "astro build",
            caches,
            build_variables,
            variables: HOST,
        });
    }
    if has("@react-router/dev") {
        let config = config("react-router").unwrap_or_default().replace(' ', "");
        let output = if config.contains("ssr:false") {
            files("build/client", Fallback::Index)
        } else {
            server("react-router-serve ./build/server/index.js")
        };
        return Some(Framework {
            name: "React Router",
            output,
            build: "react-router build",
            ..base
        });
    }
    if has("@remix-run/dev") {
        let output = server("remix-serve ./build/server/index.js");
        return Some(Framework {
            name: "Remix",
            output,
            build: "remix vite:build",
            ..base
        });
    }
    if package.has_any(&["@tanstack/react-start", "@solidjs/start", "nitropack", "nitro"]) {
        let output = server("node .output/server/index.mjs");
        return Some(Framework {
            name: "Nitro",
            output,
            build: "vite build",
            variables: HOST,
            ..base
        });
    }
    if has("@nestjs/core") {
        return Some(Framework {
            name: "NestJS",
            output: server("node dist/main"),
            build: "nest build",
            ..base
        });
    }
    if let Some(output) = angular(view) {
        let build_variables = &[("NG_CLI_ANALYTICS", "false")];
        return Some(Framework {
            name: "Angular",
            output,
            build: "ng build",
            caches: &[".angular/cache"],
            build_variables,
            ..base
        });
    }
    let simple: &[(&str, &'static str, &str, Fallback, &'static str)] = &[
        (
            "react-scripts",
            "Create React App",
            "build",
            Fallback::Index,
            "react-scripts build",
        ),
        ("gatsby", "Gatsby", "public", Fallback::NotFound, "gatsby build"),
        (
            "@docusaurus/core",
            "Docusaurus",
            "build",
            Fallback::NotFound,
            "docusaurus build",
        ),
        (
            "@11ty/eleventy",
            "Eleventy",
            "_site",
            Fallback::NotFound,
            "eleventy",
        ),
        (
            "@vue/cli-service",
            "Vue CLI",
            "dist",
            Fallback::Index,
            "vue-cli-service build",
        ),
    ];
    if let Some((_, name, directory, fallback, build)) =
        simple.iter().find(|(dependency, ..)| has(dependency))
    {
        return Some(Framework {
            name,
            output: files(directory, *fallback),
            build,
            ..base
        });
    }
    if has("vitepress") {
        let argument = build_script
            .split_whitespace()
            .skip_while(|word| *word != "build")
            .nth(1);
        let directory = argument
            .filter(|word| !word.starts_with(['-', '&']))
            .map_or(String::new(), |word| format!("{word}/"));
        let output = files(&format!("{directory}.vitepress/dist"), Fallback::NotFound);
        return Some(Framework {
            name: "VitePress",
            output,
            build: "vitepress build",
            ..base
        });
    }
    vite(view, package).map(|directory| {
        let output = Output::Static {
            directory,
            fallback: Fallback::Index,
        };
        Framework {
            name: "Vite",
            output,
            build: "vite build",
            caches: &["node_modules/.vite", "node_modules/.cache"],
            ..base
        }
    })
}

/// Where a Vite application without a server goes.
fn vite(view: &SourceView, package: &Package) -> Option<String> {
    let builds = package.scripts.values().any(|line| line.contains("vite build"));
    if !package.has("vite")
        || !(builds || config(view, "vite").is_some())
        || package.has_any(&["vike", "vinxi"])
    {
        return None;
    }
    let flag = package.scripts.get("build").and_then(|line| {
        let mut words = line.split_whitespace();
        words.find(|word| *word == "--outDir")?;
        words.next().map(str::to_owned)
    });
    let configured = || value_of(&config(view, "vite")?, "outDir");
    Some(flag.or_else(configured).unwrap_or_else(|| "dist".to_owned()))
}

/// Where Angular's only application goes.
fn angular(view: &SourceView) -> Option<Output> {
    let value: serde_json::Value = serde_json::from_str(view.text("angular.json")?).ok()?;
    let projects = value["projects"].as_object()?;
    let is_application = |project: &&serde_json::Value| project["projectType"] != "library";
    let (name, project) = projects.iter().find(|(_, project)| is_application(project))?;
    let build = ["architect", "targets"]
        .iter()
        .map(|key| &project[*key]["build"])
        .find(|build| build.is_object())?;
    let options = &build["options"];
    let path = options["outputPath"]
        .as_str()
        .or_else(|| options["outputPath"]["base"].as_str());
    let path = path.map_or_else(|| format!("dist/{name}"), str::to_owned);
    let builder = build["builder"].as_str().unwrap_or_default();
    if !options["ssr"].is_null() && options["ssr"] != false {
        return Some(Output::Server(format!("node {path}/server/server.mjs")));
    }
    let directory = if builder.ends_with(":application") {
        format!("{path}/browser")
    } else {
        path
    };
    Some(Output::Static {
        directory,
        fallback: Fallback::Index,
    })
}

/// The text of `NAME.config.*`.
fn config(view: &SourceView, name: &str) -> Option<String> {
    let ends = ["js", "mjs", "cjs", "ts", "mts", "cts"];
    let path = ends
        .iter()
        .map(|end| format!("{name}.config.{end}"))
        .find(|path| view.has(path))?;
    Some(without_comments(view.text(&path).unwrap_or_default()))
}

/// The text without its comments. A `//` behind a colon is part of an address.
fn without_comments(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("/*") {
        kept.push_str(&rest[..at]);
        rest = rest[at..].split_once("*/").map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    let line = |line: &str| {
        let comment = line
            .match_indices("//")
            .find(|(at, _)| !line[..*at].ends_with(':'));
        comment.map_or(line, |(at, _)| &line[..at]).to_owned()
    };
    kept.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The text of `KEY: 'VALUE'` in a configuration that is a program: a guess that is right for what people write.
fn value_of(text: &str, key: &str) -> Option<String> {
    for (at, _) in text.match_indices(key) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.') {
            continue;
        }
        let after = text[at + key.len()..]
            .trim_start_matches(['"', '\''])
            .trim_start();
        let Some(after) = after.strip_prefix(':').map(str::trim_start) else {
            continue;
        };
        let Some(quote) = after.chars().next().filter(|c| matches!(c, '"' | '\'' | '`')) else {
            continue;
        };
        return after[1..].split(quote).next().map(str::to_owned);
    }
    None
}

/// Whether a start script is a framework's own development or preview server.
pub(super) fn is_development_server(line: &str) -> bool {
    let (_, command) = crate::detect::shell::split_assignments(line.trim());
    let mut words = command
        .split_whitespace()
        .filter(|word| !matches!(*word, "npx" | "cross-env"));
    let words = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    matches!(
        words,
        (
            "vite" | "parcel" | "webpack-dev-server" | "serve" | "http-server" | "live-server",
            _
        ) | ("react-scripts" | "docusaurus" | "expo", "start")
            | ("ng" | "vue-cli-service" | "webpack", "serve" | "s")
            | (
                "docusaurus" | "vitepress" | "gatsby",
                "serve" | "dev" | "develop" | "preview"
            )
            | ("astro", "dev" | "preview" | "start")
            | ("nuxt" | "nuxi", "dev" | "preview" | "start")
            | ("next", "dev" | "start")
            | ("react-router", "dev")
            | ("remix", "dev" | "vite:dev")
            | ("eleventy", "--serve")
            | ("nest", "start")
            | ("storybook", "dev")
            | ("vinxi", "dev")
    )
}
