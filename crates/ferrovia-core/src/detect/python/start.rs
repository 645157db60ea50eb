//! What starts a Python application that has no `Procfile`.

use crate::detect::view::SourceView;

use super::PROGRAMS;
use super::needs::Needs;

/// A command line, and what led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) line: String,
    /// The file that says it.
    pub(super) path: String,
    /// What is in it.
    pub(super) what: String,
    /// What should be told about it: message and remedy.
    pub(super) warning: Option<(String, String)>,
    /// Whether the build collects static files.
    pub(super) collects_static: bool,
}

impl Start {
    fn new(line: impl Into<String>, path: &str, what: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            path: path.to_owned(),
            what: what.into(),
            warning: None,
            collects_static: false,
        }
    }

    fn with_development_server(mut self, server: &str) -> Self {
        self.warning = Some((
            format!(
                "no production server is among the dependencies, so {server} runs, which is meant for development"
            ),
            "add `gunicorn` (or `uvicorn` for ASGI) to the dependencies".to_owned(),
        ));
        self
    }
}

const BIND: &str = "--bind 0.0.0.0:${PORT:-8080}";
const HOST_PORT: &str = "--host 0.0.0.0 --port ${PORT:-8080}";

/// Django, else an application object of a known framework, else a script of the project, else a program by name.
pub(super) fn find(view: &SourceView, needs: &Needs) -> Option<Start> {
    django(view, needs)
        .or_else(|| object(view, needs))
        .or_else(|| program(view, needs))
}

fn django(view: &SourceView, needs: &Needs) -> Option<Start> {
    let manage = view.text("manage.py")?;
    if !needs.has("django") && !manage.contains("django") {
        return None;
    }
    let module = |name: &str| {
        let path = view
            .paths()
            .find(|path| path.matches('/').count() == 1 && path.ends_with(&format!("/{name}.py")))?;
        path.split('/').next().map(str::to_owned)
    };
    // `os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")`
    let settings = manage
        .split("DJANGO_SETTINGS_MODULE")
        .nth(1)
        .and_then(|rest| rest.split(['"', '\'']).nth(2))
        .map(str::to_owned);
    let package = settings
        .as_deref()
        .and_then(|settings| settings.split('.').next())
        .map(str::to_owned);
    let package = package.or_else(|| module("wsgi")).or_else(|| module("asgi"))?;
    let migrate = "python manage.py migrate --noinput && ";
    let asgi = view.has(&format!("{package}/asgi.py"));
    let wsgi = view.has(&format!("{package}/wsgi.py"));
    let served = match () {
        () if needs.has("gunicorn") && wsgi => Some(format!("gunicorn {BIND} {package}.wsgi:application")),
        () if needs.has("gunicorn") && needs.has("uvicorn") && asgi => Some(format!(
            "gunicorn -k uvicorn.workers.UvicornWorker {BIND} {package}.asgi:application"
        )),
        () if needs.has("uvicorn") && asgi => Some(format!("uvicorn {HOST_PORT} {package}.asgi:application")),
        () if needs.has("daphne") && asgi => Some(format!(
            "daphne -b 0.0.0.0 -p ${{PORT:-8080}} {package}.asgi:application"
        )),
        () if needs.has("waitress") && wsgi => Some(format!(
            "waitress-serve --listen=0.0.0.0:${{PORT:-8080}} {package}.wsgi:application"
        )),
        () => None,
    };
    let start = match served {
        Some(line) => Start::new(format!("{migrate}{line}"), "manage.py", "Django"),
        None => {
            let line = format!("{migrate}python manage.py runserver --noreload 0.0.0.0:${{PORT:-8080}}");
            Start::new(line, "manage.py", "Django").with_development_server("Django's own server")
        }
    };
    let settings_path = settings.map(|settings| format!("{}.py", settings.replace('.', "/")));
    let has_static_root = settings_path
        .and_then(|path| view.text(&path).map(|text| text.contains("STATIC_ROOT")))
        .unwrap_or(false);
    Some(Start {
        collects_static: has_static_root,
        ..start
    })
}

/// `app = FastAPI()` and its like, in files where people put them.
fn object(view: &SourceView, needs: &Needs) -> Option<Start> {
    const ASGI: &[&str] = &[
        "FastAPI",
        "Starlette",
        "Litestar",
        "Quart",
        "FastHTML",
        "Sanic",
        "BlackSheep",
    ];
    const WSGI: &[&str] = &["Flask", "Bottle", "falcon.App", "Dash"];
    let mut files: Vec<&str> = view.paths().filter(|path| path.ends_with(".py")).collect();
    let place = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let known = PROGRAMS
            .iter()
            .chain(&["wsgi.py", "asgi.py", "__init__.py"])
            .position(|program| *program == name);
        (path.matches('/').count(), known.unwrap_or(usize::MAX))
    };
    files.sort_by_key(|path| place(path));
    for path in files.into_iter().filter(|path| !path.starts_with("test")) {
        let Some(text) = view.text(path) else { continue };
        let (directory, module) = module_of(path);
        let prefix = if directory.is_empty() {
            String::new()
        } else {
            format!("cd {directory} && ")
        };
        if let Some((name, class)) = assigned(text, ASGI) {
            let target = format!("{module}:{name}");
            let what = format!("{class} application `{name}`");
            if needs.has("uvicorn")
                || needs.has("fastapi[standard]")
                || needs.has("fastapi[all]")
                || needs.has("python-fasthtml")
            {
                return Some(Start::new(
                    format!("{prefix}uvicorn {target} {HOST_PORT}"),
                    path,
                    what,
                ));
            }
            if needs.has("hypercorn") {
                return Some(Start::new(
                    format!("{prefix}hypercorn {BIND} {target}"),
                    path,
                    what,
                ));
            }
            if class == "Sanic" {
                return Some(Start::new(
                    format!("{prefix}sanic {module}.{name} {HOST_PORT}"),
                    path,
                    what,
                ));
            }
        }
        if let Some((name, class)) = assigned(text, WSGI).or_else(|| {
            text.contains("\ndef create_app(")
                .then(|| ("create_app()".to_owned(), "Flask"))
        }) {
            // Dash keeps its Flask application in `server`.
            let name = if class == "Dash" && text.contains("server = ") {
                "server".to_owned()
            } else {
                name
            };
            let what = format!("{class} application `{name}`");
            if needs.has("gunicorn") {
                let target = crate::detect::shell::quoted(&format!("{module}:{name}"));
                return Some(Start::new(
                    format!("{prefix}gunicorn {BIND} {target}"),
                    path,
                    what,
                ));
            }
            if needs.has("waitress") {
                return Some(Start::new(
                    format!("{prefix}waitress-serve --listen=0.0.0.0:${{PORT:-8080}} {module}:{name}"),
                    path,
                    what,
                ));
            }
            if class == "Flask" {
                let app = crate::detect::shell::quoted(&format!("{module}:{name}"));
                let line = format!("{prefix}python -m flask --app {app} run {HOST_PORT}");
                return Some(Start::new(line, path, what).with_development_server("Flask's own server"));
            }
        }
    }
    None
}

/// Directory to be in, and module, of a file: `src/main.py` is `main` in `src`, `app/main.py` is `app.main`.
fn module_of(path: &str) -> (&str, String) {
    let path = path.trim_end_matches(".py");
    let (directory, inner) = match path.strip_prefix("src/") {
        Some(inner) => ("src", inner),
        None => ("", path),
    };
    (directory, inner.trim_end_matches("/__init__").replace('/', "."))
}

/// The name on the left of `NAME = CLASS(`, at the beginning of a line.
fn assigned<'a>(text: &str, classes: &[&'a str]) -> Option<(String, &'a str)> {
    for line in text.lines() {
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let name = name.split(':').next().unwrap_or_default().trim_end();
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let value = value.trim_start();
        // `flask.Flask(` as well as `Flask(`.
        let call = value.split('(').next().unwrap_or_default();
        let class = classes
            .iter()
            .find(|class| call == **class || call.rsplit('.').next() == Some(class));
        if let (true, true, Some(class)) = (is_name, value.contains('('), class) {
            return Some((name.to_owned(), class));
        }
        if is_name && call == "fast_app" {
            return Some((name.to_owned(), classes.first()?));
        }
    }
    None
}

fn program(view: &SourceView, needs: &Needs) -> Option<Start> {
    if needs.has("streamlit") {
        let path = PROGRAMS
            .iter()
            .chain(&["streamlit_app.py"])
            .find(|path| view.text(path).is_some_and(|text| text.contains("streamlit")))?;
        let line = format!(
            "streamlit run {path} --server.port ${{PORT:-8080}} --server.address 0.0.0.0 --server.headless true"
        );
        return Some(Start::new(line, path, "Streamlit application"));
    }
    if let Some(path) = PROGRAMS.iter().find(|path| view.has(path)) {
        return Some(Start::new(format!("python {path}"), path, "program"));
    }
    if let ([script], true) = (needs.scripts.as_slice(), needs.is_package) {
        return Some(Start::new(script, "pyproject.toml", format!("script `{script}`")));
    }
    let package = view
        .paths()
        .find(|path| path.matches('/').count() <= 2 && path.ends_with("/__main__.py"))?;
    let (directory, module) = module_of(package.trim_end_matches("/__main__.py"));
    let prefix = if directory.is_empty() {
        String::new()
    } else {
        format!("cd {directory} && ")
    };
    Some(Start::new(
        format!("{prefix}python -m {module}"),
        package,
        "package that runs",
    ))
}
