//! Node.

use ferrovia_core::plan::PortPlan;
use ferrovia_core::settings::BuildSettings;

use super::{check, check_with, codes, detected, plan};

const EXPRESS: &str = r#"{"scripts":{"start":"node server.js"},"dependencies":{"express":"5"}}"#;

#[test]
fn without_dependencies() {
    check(
        "node_bare",
        &[(
            "server.js",
            "require('node:http').createServer().listen(process.env.PORT)",
        )],
    );
    check(
        "node_no_dependencies",
        &[
            (
                "package.json",
                r#"{"name":"hello","scripts":{"start":"node server.js"}}"#,
            ),
            ("server.js", ""),
        ],
    );
    assert_eq!(
        detected(&[("index.js", "document.title = 1")])
            .unwrap_err()
            .report
            .code,
        "nothing_detected",
        "a program for browsers is none for Node"
    );
}

#[test]
fn with_a_lock_file() {
    check(
        "node_npm",
        &[
            ("package.json", EXPRESS),
            ("package-lock.json", "{}"),
            (".npmrc", "//r/:_authToken=${REGISTRY_TOKEN}"),
            ("server.js", ""),
        ],
    );
    check("node_no_lock", &[("package.json", EXPRESS), ("server.js", "")]);
}

#[test]
fn typescript_is_built_and_pruned() {
    let tree = [
        (
            "package.json",
            r#"{"scripts":{"build":"tsc -p .","start":"node dist/main.js"},"dependencies":{"express":"5"},"devDependencies":{"typescript":"5"}}"#,
        ),
        ("package-lock.json", "{}"),
        ("src/main.ts", ""),
        ("tsconfig.json", "{}"),
        (".nvmrc", "v22.11.0\n"),
    ];
    check("node_typescript", &tree);
}

#[test]
fn a_compiled_program_is_found_without_a_start_script() {
    let start = |config: &str, source: &str| {
        let package = r#"{"scripts":{"build":"tsc"},"devDependencies":{"typescript":"5"}}"#;
        plan(&[
            ("package.json", package),
            ("package-lock.json", ""),
            ("tsconfig.json", config),
            (source, ""),
        ])
        .deploy
        .start
        .unwrap()
    };
    assert_eq!(
        start(
            r#"{"compilerOptions":{"outDir":"./build/","rootDir":"src"}}"#,
            "src/index.ts"
        ),
        ["node", "build/index.js"]
    );
    assert_eq!(start("{}", "src/server.ts"), ["node", "dist/server.js"]);
    assert_eq!(
        start(r#"{"compilerOptions":{"rootDir":"."}}"#, "src/server.ts"),
        ["node", "dist/src/server.js"]
    );
}

#[test]
fn package_managers() {
    for (name, file, text) in [
        ("node_pnpm", "pnpm-lock.yaml", "lockfileVersion: '9.0'\n"),
        ("node_yarn", "yarn.lock", "# yarn lockfile v1\n"),
        ("node_berry", "yarn.lock", "__metadata:\n  version: 8\n"),
        ("node_bun", "bun.lock", "{}"),
    ] {
        let package =
            r#"{"scripts":{"start":"node ."},"dependencies":{"a":"1"},"devDependencies":{"b":"1"}}"#;
        check(name, &[("package.json", package), (file, text)]);
    }
    let notes = |package: &str, lock: &str| {
        detected(&[("package.json", package), ("pnpm-lock.yaml", lock)])
            .unwrap()
            .notes[1]
            .clone()
    };
    let with = |more: &str| format!(r#"{{"scripts":{{"start":"node ."}},"dependencies":{{"a":"1"}}{more}}}"#);
    assert!(
        notes(&with(r#","packageManager":"pnpm@9.1.2+sha512.abc""#), "")
            .starts_with("pnpm 9.1.2, since `package.json` > `packageManager`")
    );
    assert!(notes(&with(""), "lockfileVersion: 5.4\n").starts_with("pnpm 7."));
    assert!(notes(&with(""), "lockfileVersion: '6.0'\n").starts_with("pnpm 8."));
    assert!(
        notes(
            &with(r#","pnpm":{"onlyBuiltDependencies":["x"]}"#),
            "lockfileVersion: '9.0'\n"
        )
        .starts_with("pnpm 10.")
    );
    assert!(
        notes(&with(r#","engines":{"pnpm":">=10"}"#), "lockfileVersion: '9.0'\n").starts_with("pnpm 10.")
    );
}

#[test]
fn files_that_pin_a_version_come_before_ranges() {
    let tree = [
        (
            "package.json",
            r#"{"engines":{"node":">=18"},"scripts":{"start":"node ."}}"#,
        ),
        (".node-version", "22\n"),
        (".tool-versions", "nodejs 24.1.0 # x\n"),
    ];
    let plan = plan(&tree);
    assert_eq!(
        (plan.versions[0].line.as_str(), plan.versions[0].others.len()),
        ("22", 2)
    );
}

#[test]
fn versions_that_are_not_there() {
    let package = r#"{"scripts":{"start":"node ."}}"#;
    let detection = detected(&[("package.json", package), (".nvmrc", "20.3.1")]).unwrap();
    assert_eq!(codes(&detection.warnings), ["version_substituted"]);
    check(
        "node_version_missing",
        &[("package.json", package), (".nvmrc", "lts/gallium")],
    );
}

#[test]
fn lifecycle_scripts_need_the_source_unless_they_are_known() {
    let installs_with = |script: &str| {
        let package = format!(
            r#"{{"scripts":{{"start":"node .","postinstall":"{script}"}},"dependencies":{{"a":"1"}}}}"#
        );
        let plan = plan(&[
            ("package.json", &package),
            ("package-lock.json", ""),
            ("index.js", ""),
        ]);
        format!("{:?}", plan.steps[0].commands)
    };
    assert!(installs_with("node setup.js").contains("paths: [\".\"]"));
    assert!(installs_with("patch-package && husky || true").contains("package-lock.json"));
    let local = r#"{"scripts":{"start":"node ."},"dependencies":{"a":"file:./a"}}"#;
    check(
        "node_local_dependency",
        &[
            ("package.json", local),
            ("package-lock.json", ""),
            ("a/package.json", "{}"),
            ("index.js", ""),
        ],
    );
}

#[test]
fn frameworks() {
    let vite = r#"{"scripts":{"build":"vite build","dev":"vite","start":"vite preview"},"devDependencies":{"vite":"7","react":"19"}}"#;
    check(
        "node_vite",
        &[
            ("package.json", vite),
            ("package-lock.json", ""),
            ("vite.config.ts", "export default { build: { outDir: 'out' } }"),
        ],
    );
    check(
        "node_next",
        &[
            (
                "package.json",
                r#"{"scripts":{"build":"next build","start":"next start -p $PORT"},"dependencies":{"next":"15","react":"19"}}"#,
            ),
            ("package-lock.json", ""),
            ("next.config.js", "module.exports = { // output: 'export'\n}"),
        ],
    );
    check(
        "node_next_export",
        &[
            (
                "package.json",
                r#"{"scripts":{"build":"next build","start":"next start"},"dependencies":{"next":"15"}}"#,
            ),
            ("package-lock.json", ""),
            ("next.config.mjs", "export default {\n  output: \"export\",\n}"),
        ],
    );
    let output = |dependency: &str, build: &str, files: &[(&str, &str)]| {
        let package = format!(r#"{{"scripts":{{"build":"{build}"}},"dependencies":{{"{dependency}":"1"}}}}"#);
        let mut tree = vec![("package.json", package.as_str()), ("package-lock.json", "")];
        tree.extend(files);
        let plan = plan(&tree);
        match plan.deploy.base.as_str() {
            "static:1" => plan.deploy.inputs[0].from.clone(),
            _ => plan.deploy.start.unwrap().join(" "),
        }
    };
    for (dependency, build, files, expected) in [
        ("astro", "astro build", &[][..], "/app/dist"),
        (
            "astro",
            "astro build",
            &[("astro.config.mjs", "{ output: 'server', adapter: node() }")],
            "node ./dist/server/entry.mjs",
        ),
        ("nuxt", "nuxt build", &[], "node .output/server/index.mjs"),
        ("nuxt", "nuxt generate", &[], "/app/.output/public"),
        ("react-scripts", "react-scripts build", &[], "/app/build"),
        ("@sveltejs/kit", "vite build", &[], "node build"),
        (
            "@react-router/dev",
            "react-router build",
            &[("react-router.config.ts", "{ ssr: false }")],
            "/app/build/client",
        ),
        (
            "@react-router/dev",
            "react-router build",
            &[],
            "react-router-serve ./build/server/index.js",
        ),
        ("@docusaurus/core", "docusaurus build", &[], "/app/build"),
        ("@11ty/eleventy", "eleventy", &[], "/app/_site"),
        ("gatsby", "gatsby build", &[], "/app/public"),
        (
            "vitepress",
            "vitepress build docs",
            &[],
            "/app/docs/.vitepress/dist",
        ),
        ("vite", "tsc && vite build --outDir www", &[], "/app/www"),
        (
            "@angular/core",
            "ng build",
            &[(
                "angular.json",
                r#"{"projects":{"shop":{"projectType":"application","architect":{"build":{"builder":"@angular/build:application","options":{"outputPath":"dist/shop"}}}}}}"#,
            )],
            "/app/dist/shop/browser",
        ),
    ] {
        assert_eq!(
            output(dependency, build, files),
            expected,
            "{dependency} {build} {files:?}"
        );
    }
}

#[test]
fn a_start_script_of_its_own_beats_files() {
    let package = r#"{"scripts":{"build":"vite build","start":"node server.js"},"dependencies":{"express":"5"},"devDependencies":{"vite":"7"}}"#;
    let plan = plan(&[
        ("package.json", package),
        ("package-lock.json", ""),
        ("server.js", ""),
    ]);
    assert_eq!(plan.deploy.start.unwrap(), ["node", "server.js"]);
}

#[test]
fn what_is_for_development_does_not_run() {
    let with = |scripts: &str| {
        let package = format!(
            r#"{{"scripts":{scripts},"dependencies":{{"a":"1"}},"devDependencies":{{"nodemon":"3","tsx":"4"}}}}"#
        );
        let detection = detected(&[
            ("package.json", &package),
            ("package-lock.json", ""),
            ("server.js", ""),
        ])
        .unwrap();
        let plan = match detection.method {
            ferrovia_core::detect::Method::Auto { plan } => plan,
            method => panic!("{method:?}"),
        };
        (
            plan.deploy.start.unwrap().join(" "),
            codes(&detection.warnings).join(" "),
        )
    };
    let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        with(r#"{"start":"nodemon server.js"}"#),
        text("node server.js", "start_command_changed")
    );
    assert_eq!(
        with(r#"{"start":"nest start","start:prod":"node dist/main"}"#),
        text("node dist/main", "")
    );
    assert_eq!(
        with(r#"{"start":"tsx server.ts"}"#),
        text("tsx server.ts", "development_dependency_needed")
    );
    assert_eq!(
        with(r#"{"build":"x","start":"npm run build && node server.js"}"#),
        text("node server.js", "start_command_changed")
    );
    assert_eq!(
        with(r#"{"start":"npm run-all x"}"#).1,
        "start_needs_package_manager"
    );
}

#[test]
fn workspaces() {
    check(
        "node_workspace",
        &[
            (
                "package.json",
                r#"{"private":true,"workspaces":["apps/*","packages/*"],"scripts":{"build":"npm run build -w @x/api","start":"npm start -w @x/api"},"devDependencies":{"typescript":"5"}}"#,
            ),
            ("package-lock.json", ""),
            (
                "apps/api/package.json",
                r#"{"name":"@x/api","scripts":{"build":"tsc","start":"node dist/index.js"},"dependencies":{"@x/lib":"*"}}"#,
            ),
            ("apps/api/src/index.ts", ""),
            ("packages/lib/package.json", r#"{"name":"@x/lib"}"#),
        ],
    );
}

#[test]
fn workspaces_of_pnpm_are_installed_anew_without_what_is_for_development() {
    check(
        "node_pnpm_workspace",
        &[
            (
                "package.json",
                r#"{"private":true,"packageManager":"pnpm@9.15.9","scripts":{"start":"pnpm --filter api start"},"devDependencies":{"husky":"9"}}"#,
            ),
            ("pnpm-lock.yaml", "lockfileVersion: '9.0'"),
            ("pnpm-workspace.yaml", "packages: [apps/*]"),
            (
                "apps/api/package.json",
                r#"{"name":"api","scripts":{"start":"node index.js"}}"#,
            ),
            ("apps/api/index.js", ""),
        ],
    );
}

#[test]
fn processes_of_a_procfile() {
    check(
        "node_procfile",
        &[
            (
                "package.json",
                r#"{"scripts":{"start":"node server.js","migrate":"node migrate.js"},"dependencies":{"a":"1"}}"#,
            ),
            ("package-lock.json", ""),
            (
                "Procfile",
                "web: npm start\nworker: node worker.js\nrelease: npm run migrate\n",
            ),
        ],
    );
    let worker = plan(&[
        ("package.json", "{}"),
        ("Procfile", "worker: node worker.js\n"),
        ("worker.js", ""),
    ]);
    assert_eq!(worker.deploy.port, PortPlan::None);
    assert_eq!(worker.deploy.start.unwrap(), ["node", "worker.js"]);
}

#[test]
fn settings_replace_commands() {
    let settings = BuildSettings {
        install_command: Some("npm install --legacy-peer-deps".to_owned()),
        build_command: Some("make $X".to_owned()),
        ..BuildSettings::default()
    };
    check_with(
        "node_commands",
        &[
            ("package.json", EXPRESS),
            ("package-lock.json", ""),
            ("server.js", ""),
        ],
        &settings,
    );
}

#[test]
fn no_start() {
    check(
        "node_no_start",
        &[
            ("package.json", r#"{"dependencies":{"a":"1"}}"#),
            ("package-lock.json", ""),
        ],
    );
}

#[test]
fn libraries_of_the_system() {
    let package = r#"{"scripts":{"start":"node ."},"dependencies":{"@prisma/client":"6","puppeteer":"24"}}"#;
    let plan = plan(&[
        ("package.json", package),
        ("package-lock.json", ""),
        ("prisma/schema.prisma", ""),
        ("index.js", ""),
    ]);
    assert_eq!(plan.deploy.packages, ["openssl", "chromium"]);
    assert_eq!(
        plan.deploy.inputs.len(),
        1,
        "what Prisma generates lies among the dependencies"
    );
}
