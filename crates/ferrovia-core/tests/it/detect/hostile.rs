//! Trees that were made to hurt: detection answers, whatever stands in the files.

use ferrovia_core::bases::{Origin, available};
use ferrovia_core::detect::{MAX_HEAD_BYTES, Method, Request, SourceView, detect};
use ferrovia_core::dockerfile::Dockerfile;
use ferrovia_core::settings::BuildSettings;
use proptest::prelude::*;

/// Files that detection looks into, with something that it understands.
const SAMPLES: &[(&str, &str)] = &[
    (
        "package.json",
        r#"{"name":"x","main":"./lib","packageManager":"pnpm@9.1.0+sha","workspaces":["a/*"],"engines":{"node":">=20 <23 || ^24"},"scripts":{"build":"vite build --outDir out","start":"A=1 npm run -w 'a b' x && node 'b c' $PORT","x":"npx y"},"dependencies":{"next":"1","vite":"2","file":"file:../x"},"devDependencies":{"tsx":"1"}}"#,
    ),
    (
        "a/package.json",
        r#"{"name":"a b","scripts":{"x":"yarn --cwd a start"}}"#,
    ),
    ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n"),
    ("pnpm-workspace.yaml", "packages:\n  - a/*\noverrides: {}\n"),
    (
        ".yarnrc.yml",
        "yarnPath: .yarn/releases/yarn.cjs\nnpmAuthToken: ${TOKEN}\n",
    ),
    (".nvmrc", "lts/iron\n"),
    (".tool-versions", "nodejs 20.1.0 # x\npython 3.12\n"),
    (
        "next.config.js",
        "module.exports = { output: 'export', /* x */ distDir: \"o\" } // y",
    ),
    ("vite.config.ts", "export default { build: { outDir: `x` } }"),
    (
        "angular.json",
        r#"{"projects":{"s":{"projectType":"application","architect":{"build":{"builder":"x:application","options":{"outputPath":{"base":"d"}}}}}}}"#,
    ),
    (
        "tsconfig.json",
        r#"{"compilerOptions":{"outDir":"./b/","rootDir":"src"}}"#,
    ),
    (
        "requirements.txt",
        "-r a/more.txt\nflask[async]==3.0 ; python_version > '3'\n-e ./x\n",
    ),
    (
        "pyproject.toml",
        "[project]\nrequires-python='>=3.11,!=3.12.*'\ndependencies=['a[b]>=1']\n[tool.poetry.dependencies]\npython='^3.11'\nx={extras=['y']}\n",
    ),
    (
        "Pipfile",
        "[packages]\na='*'\n[requires]\npython_version='3.13'\n",
    ),
    (
        "manage.py",
        "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\nimport django",
    ),
    (
        "app.py",
        "import x\napp: Flask = flask.Flask(__name__)\ndef create_app():\n",
    ),
    (
        "go.mod",
        "module example.com/x/v2 // y\n\ngo 1.24.1\ntoolchain go1.25.0\n",
    ),
    ("main.go", "//go:build x\n\npackage main\n\nfunc main() {}\n"),
    (
        "Cargo.toml",
        "[package]\nname='x'\nedition='2024'\n[[bin]]\nname='y'\npath='src/y.rs'\n[workspace]\n",
    ),
    ("src/main.rs", "fn main() {}"),
    ("rust-toolchain.toml", "[toolchain]\nchannel='1.80'\n"),
    (
        "pom.xml",
        "<project><packaging>jar</packaging><properties><java.version>${x}</java.version><x>17</x></properties><build><plugins><plugin><artifactId>maven-jar-plugin</artifactId><configuration><mainClass>${x}</mainClass></configuration></plugin></plugins></build></project>",
    ),
    (
        "src/main/java/a/B.java",
        "class B { public static void main(String[] a) {} }",
    ),
    ("Procfile", "web: gunicorn 'a:b()' # c\nworker: x=1 y && z\n"),
    ("Staticfile", "root: ./x/\nindex_fallback: true\n"),
    ("index.html", "x"),
];

fn detect_all(files: Vec<(String, String)>, provider: Option<&str>) {
    let view = SourceView::from_files(files);
    let settings = BuildSettings {
        provider: provider.map(str::to_owned),
        ..BuildSettings::default()
    };
    let tools = available(Origin::Made);
    let request = Request {
        view: &view,
        settings: &settings,
        tools: &tools,
        variables: &[],
        allow_no_start: true,
    };
    if let Ok(detection) = detect(&request)
        && let Method::Auto { plan } = detection.method
    {
        plan.check(true).unwrap();
        let nul = serde_json::to_string(&plan).unwrap().contains("\\u0000");
        assert!(!nul, "{plan:?}");
    }
}

/// A sample with a piece taken out and something put in its place.
fn damaged(text: &str, at: usize, length: usize, put: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = at % (chars.len() + 1);
    let end = (at + length).min(chars.len());
    let (head, tail): (String, String) = (chars[..at].iter().collect(), chars[end..].iter().collect());
    format!("{head}{put}{tail}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_read_or_refused(
        keep in prop::collection::vec(any::<bool>(), SAMPLES.len()),
        place in 0..SAMPLES.len(),
        at in 0_usize..400,
        length in 0_usize..12,
        put in "[ -~äß€\u{feff}\n\t\"'{}$<>\\[\\]]{0,6}",
        provider in prop::sample::select(vec![None, Some("node"), Some("python"), Some("go"), Some("rust"), Some("java"), Some("static"), Some("procfile")]),
    ) {
        let files = SAMPLES.iter().enumerate().filter(|(index, _)| keep[*index] || *index == place);
        let files = files.map(|(index, (path, text))| {
            let text = if index == place { damaged(text, at, length, &put) } else { (*text).to_owned() };
            ((*path).to_owned(), text)
        });
        detect_all(files.collect(), provider);
    }

    #[test]
    fn any_dockerfile_is_read(text in "((FROM|ARG|RUN|COPY|#|as|--from=|<<EOF|\\$\\{A:-|\\}|[ =a-z\"'\\\\\n]){0,6}\n?){0,8}") {
        let file = Dockerfile::read(&text);
        file.images(&Default::default());
        file.unlisted_arguments(&[], &["a".to_owned()]);
        let _ = file.check_target("a");
    }
}

#[test]
fn nesting_without_end_is_refused() {
    for (path, open) in [
        ("package.json", "["),
        ("pom.xml", "<a>"),
        ("angular.json", "{\"a\":"),
        ("pyproject.toml", "a=[[[["),
        ("Cargo.toml", "[a.b.c.d]\nx={a={"),
    ] {
        let text = open.repeat(MAX_HEAD_BYTES / open.len());
        detect_all(
            vec![(path.to_owned(), text), ("app.py".to_owned(), String::new())],
            None,
        );
    }
    let entities =
        "<!DOCTYPE a [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;\">]><project>&b;</project>";
    detect_all(vec![("pom.xml".to_owned(), entities.to_owned())], Some("java"));
}

#[test]
fn scripts_that_call_each_other_end() {
    let calls = |n: usize| {
        format!(
            "\"s{n}\":\"{}\"",
            vec![format!("npm run s{}", (n + 1) % 40); 200].join(" && ")
        )
    };
    let scripts: Vec<_> = (0..40).map(calls).collect();
    let package = format!(
        "{{\"scripts\":{{\"start\":\"npm run s0\",{}}}}}",
        scripts.join(",")
    );
    detect_all(vec![("package.json".to_owned(), package)], None);
}
