//! The sample service in a folder of its own, with a manifest.

use retoma_control::drill::{Context, Patient, port};
use retoma_control::open::open_address;
use retoma_control::{Interrupt, Silent, Stopwatch, Supervisor};
use retoma_core::Secret;
use retoma_core::manifest::{Manifest, Origin, parse, render};
use retoma_marabet::{SeedOptions, seed};
use retoma_repo::Repository;
use retoma_testkit::manifest::FOLDERS;
use std::path::{Path, PathBuf};

pub(crate) fn program() -> PathBuf {
    std::env::current_exe().unwrap()
}

pub(crate) fn supervisor() -> Supervisor {
    let words = ["--exact", "helper::supervisor", "--nocapture", "--"];
    Supervisor { program: program(), arguments: words.map(Into::into).to_vec() }
}

/// A seeded service, its manifest and its repository, in a temporary folder.
pub(crate) struct Sample {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) manifest: Manifest,
    pub(crate) text: String,
}

impl Sample {
    pub(crate) fn new() -> Self {
        Self::with(|text| text)
    }

    /// With a manifest that `change` has changed.
    pub(crate) fn with(change: impl FnOnce(String) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("service");
        let options = SeedOptions { rows: 300, model_bytes: 20_000, log_bytes: 5_000, seed: 1 };
        seed(&root, &options, &|_| ()).unwrap();
        std::fs::write(folder.path().join("password"), "a password\n").unwrap();
        private(&folder.path().join("password"));
        let text = change(text(folder.path(), port::free().unwrap()));
        let origin = Origin { file_name: "retoma.toml".to_owned(), dir: root };
        let manifest = parse(&text, &origin).unwrap_or_else(|it| panic!("{}", render(&it, "retoma.toml")));
        Self { folder, manifest, text }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub(crate) fn password() -> Secret<String> {
        Secret::new("a password".to_owned())
    }

    pub(crate) fn repository(&self) -> Repository {
        let url = format!("file://{}", self.path("repository").display());
        open_address(&url, &Self::password(), true).unwrap().repository
    }

    /// As a drill's patient: the seeded service itself, as the demo does.
    pub(crate) fn patient(&self) -> Patient {
        drop(self.repository());
        Patient {
            manifest: self.manifest.clone(),
            manifest_text: self.text.clone(),
            manifest_is_stored: true,
            is_part: false,
            repository_dir: self.path("repository"),
            password: Self::password(),
            several: None,
            scratch: self.folder.path().to_owned(),
            root: None,
            folder: None,
        }
    }

    /// The processes that belong to this folder.
    pub(crate) fn processes(&self) -> usize {
        let port = self.manifest.service.health.as_ref().unwrap().split(':').nth(2).unwrap();
        let port = port.split('/').next().unwrap();
        retoma_control::service::processes_with(&format!("--port\0{port}")).len()
    }
}

pub(crate) fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn text(folder: &Path, port: u16) -> String {
    let (folder, program) = (folder.display(), program().display().to_string());
    format!(
        r#"version = 1

[service]
name = "marabet"
health = "http://127.0.0.1:{port}/healthz"
start = ["{program}", "--exact", "helper::marabet", "--nocapture", "--", "serve", "--root", ".", "--port", "{port}"]
ready_seconds = 60

[[service.check]]
url = "http://127.0.0.1:{port}/healthz?deep=true"
expect_body = "\"healthy\":true"

[[repository]]
name = "local"
url = "file://{folder}/repository"
password = "file:{folder}/password"

[[component]]
name = "database"
kind = "sqlite"
tier = "critical"
path = "data/marabet.sqlite"

[[component.check]]
sql = "SELECT count(*) FROM users"
min_rows = 1
{FOLDERS}
[[component]]
name = "logs"
kind = "files"
tier = "low"
path = "logs"

[drill]
marker_url = "http://127.0.0.1:{port}/marker"
timeout_seconds = 120
"#
    )
}

/// Runs `work` with what a drill is told.
pub(crate) fn in_context<T>(work: impl FnOnce(&Context<'_>) -> T) -> T {
    let (supervisor, interrupt) = (supervisor(), Interrupt::default());
    work(&Context {
        supervisor: &supervisor,
        tool_version: "0.0.0",
        repeat: "retoma drill",
        watch: &Silent,
        interrupt: &interrupt,
        clock: Stopwatch::start(),
        marks: 3,
    })
}
