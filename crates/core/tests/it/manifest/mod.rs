//! The manifest as its users meet it: accepted, refused, documented, made by `init`.

mod accepted;
mod generated;
mod init;
mod refused;
mod resolved;
mod secrets;

use retoma_core::manifest::{Manifest, Origin, Problem, parse};

fn origin() -> Origin {
    Origin { file_name: "retoma.toml".into(), dir: "/srv/marabet".into() }
}

fn accept(text: &str) -> Manifest {
    match parse(text, &origin()) {
        Ok(manifest) => manifest,
        Err(problems) => panic!("{}", retoma_core::manifest::render(&problems, "retoma.toml")),
    }
}

fn refuse(text: &str) -> Vec<Problem> {
    parse(text, &origin()).expect_err("this manifest must be refused")
}

/// The codes of all problems of `text`, errors only.
fn codes(text: &str) -> Vec<&'static str> {
    match parse(text, &origin()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|problem| problem.code.as_str()).collect(),
    }
}

/// The manifest of the design: the smallest that is complete.
const SMALL: &str = r#"version = 1

[service]
name = "marabet"
health = "http://127.0.0.1:8080/healthz"

[[repository]]
name = "local"
url = "file:///var/lib/retoma/repository"
password = "file:/etc/retoma/password"

[[component]]
name = "database"
kind = "postgres"
tier = "critical"
url = "postgres://retoma@127.0.0.1:5432/marabet"

[[component]]
name = "models"
kind = "files"
tier = "high"
path = "models"
"#;
