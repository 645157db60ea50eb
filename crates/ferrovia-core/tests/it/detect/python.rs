//! Python.

use ferrovia_core::plan::PortPlan;

use super::{check, codes, detected, plan};

const FLASK: (&str, &str) = ("app.py", "import flask\n\napp = flask.Flask(__name__)\n");
const FASTAPI: (&str, &str) = (
    "app/main.py",
    "from fastapi import FastAPI\napi: FastAPI = FastAPI(title='x')\n",
);

#[test]
fn requirements() {
    check(
        "python_flask",
        &[
            ("requirements.txt", "-r base.txt\ngunicorn\n"),
            ("base.txt", "flask"),
            FLASK,
        ],
    );
    check("python_flask_builtin", &[("requirements.txt", "flask"), FLASK]);
    check(
        "python_local_requirement",
        &[
            ("requirements.txt", "-e ./lib\nflask\ngunicorn"),
            FLASK,
            ("lib/setup.py", ""),
        ],
    );
    check("python_script", &[("main.py", "print(1)")]);
}

#[test]
fn managers() {
    check(
        "python_uv",
        &[
            (
                "pyproject.toml",
                "[project]\nname = \"x\"\nrequires-python = \">=3.12\"\ndependencies = [\"fastapi[standard]\"]\n",
            ),
            ("uv.lock", "version = 1\n"),
            ("README.md", "x"),
            FASTAPI,
        ],
    );
    check(
        "python_uv_package",
        &[
            (
                "pyproject.toml",
                "[project]\nname = \"x\"\ndependencies = []\nscripts = { serve = \"x:main\" }\n[build-system]\nrequires = [\"hatchling\"]\n",
            ),
            ("uv.lock", "version = 1\n"),
            ("src/x/__init__.py", ""),
        ],
    );
    check(
        "python_poetry",
        &[
            (
                "pyproject.toml",
                "[tool.poetry]\nname = \"x\"\n[tool.poetry.dependencies]\npython = \"^3.11\"\nfastapi = \"*\"\nuvicorn = { version = \"*\", extras = [\"standard\"] }\n",
            ),
            ("poetry.lock", ""),
            FASTAPI,
        ],
    );
    check(
        "python_pdm",
        &[
            (
                "pyproject.toml",
                "[project]\ndependencies = [\"flask\", \"gunicorn\"]\n",
            ),
            ("pdm.lock", ""),
            FLASK,
        ],
    );
    check(
        "python_pipenv",
        &[
            (
                "Pipfile",
                "[packages]\nflask = \"*\"\ngunicorn = \"*\"\n[requires]\npython_version = \"3.13\"\n",
            ),
            ("Pipfile.lock", "{}"),
            FLASK,
        ],
    );
    check(
        "python_project",
        &[
            (
                "pyproject.toml",
                "[project]\nname = \"x\"\ndependencies = [\"flask\", \"gunicorn\"]\n",
            ),
            FLASK,
        ],
    );
}

#[test]
fn django() {
    check(
        "python_django",
        &[
            ("requirements.txt", "Django==5.2\ngunicorn\npsycopg2"),
            (
                "manage.py",
                "os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")",
            ),
            ("shop/settings.py", "STATIC_ROOT = BASE_DIR / 'static'"),
            ("shop/wsgi.py", ""),
            ("shop/asgi.py", ""),
        ],
    );
    let tree = [
        ("requirements.txt", "django"),
        (
            "manage.py",
            "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings.production')",
        ),
        ("shop/wsgi.py", ""),
    ];
    let detection = detected(&tree).unwrap();
    assert_eq!(codes(&detection.warnings), ["development_server"]);
}

#[test]
fn starts() {
    let start = |tree: super::Tree<'_>| plan(tree).deploy.start.unwrap().last().unwrap().clone();
    let host_port = "--host 0.0.0.0 --port ${PORT:-8080}";
    for (requirements, file, text, expected) in [
        (
            "fastapi\nuvicorn",
            "main.py",
            "app = FastAPI()",
            format!("exec uvicorn main:app {host_port}"),
        ),
        (
            "starlette\nuvicorn",
            "src/server.py",
            "app = Starlette()",
            format!("cd src && exec uvicorn server:app {host_port}"),
        ),
        (
            "fastapi\nhypercorn",
            "main.py",
            "app = FastAPI()",
            "exec hypercorn --bind 0.0.0.0:${PORT:-8080} main:app".to_owned(),
        ),
        (
            "flask\nwaitress",
            "app.py",
            "app = Flask(__name__)",
            "exec waitress-serve --listen=0.0.0.0:${PORT:-8080} app:app".to_owned(),
        ),
        (
            "flask\ngunicorn",
            "web/__init__.py",
            "x = 1\ndef create_app():\n  pass",
            "exec gunicorn --bind 0.0.0.0:${PORT:-8080} 'web:create_app()'".to_owned(),
        ),
        (
            "dash\ngunicorn",
            "app.py",
            "app = Dash()\nserver = app.server",
            "exec gunicorn --bind 0.0.0.0:${PORT:-8080} app:server".to_owned(),
        ),
        ("requests", "bot.py", "print(1)", "bot.py".to_owned()),
        ("requests", "tool/__main__.py", "print(1)", "tool".to_owned()),
    ] {
        assert_eq!(
            start(&[("requirements.txt", requirements), (file, text)]),
            expected,
            "{file}"
        );
    }
    let streamlit = start(&[
        ("requirements.txt", "streamlit"),
        ("streamlit_app.py", "import streamlit as st"),
    ]);
    assert!(
        streamlit.starts_with("exec streamlit run streamlit_app.py"),
        "{streamlit}"
    );
}

#[test]
fn versions() {
    let detection = detected(&[
        ("main.py", ""),
        (".python-version", "3.11\n"),
        ("runtime.txt", "python-3.12.1"),
    ])
    .unwrap();
    assert_eq!(codes(&detection.warnings), ["version_substituted"]);
    assert_eq!(
        detection.warnings[0].message,
        "`.python-version` asks for python `3.11`, which is not available here: python 3.13.5 is used"
    );
    check("python_2", &[("main.py", ""), (".python-version", "2.7")]);
}

#[test]
fn a_worker_has_no_port() {
    check(
        "python_worker",
        &[
            ("worker.py", "print(1)"),
            ("Procfile", "worker: python worker.py\n"),
        ],
    );
    let both = plan(&[
        FLASK,
        ("requirements.txt", "flask\ngunicorn"),
        (
            "Procfile",
            "web: gunicorn app:app\nworker: python worker.py\nrelease: python migrate.py\n",
        ),
    ]);
    assert_eq!(both.deploy.port, PortPlan::Web);
    assert_eq!(both.deploy.start.unwrap(), ["gunicorn", "app:app"]);
    assert_eq!(both.deploy.processes.len(), 3);
}

#[test]
fn settings_of_a_formatter_are_no_application() {
    let tree = [
        ("pyproject.toml", "[tool.black]\nline-length = 100\n"),
        ("package.json", r#"{"scripts":{"start":"node ."}}"#),
    ];
    assert_eq!(detected(&tree).unwrap().matches.len(), 1);
}
