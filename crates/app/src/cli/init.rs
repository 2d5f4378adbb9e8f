//! `retoma init`: a first manifest from what is found in a folder.

use crate::context::{self, Context};
use crate::exit::Exit;
use crate::output::table;
use retoma_control::{durable, paths};
use retoma_core::manifest::{self, Component, Findings, FoundPath, Origin, Source, init};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use serde_json::json;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the service
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Where backups go (default: .retoma/repository in the folder; better another disk)
    #[arg(long, value_name = "DIR")]
    backups: Option<PathBuf>,
    /// The file with the repository's password; made with a random one when it is not there
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Replace a manifest that is there
    #[arg(long)]
    force: bool,
}

/// Folders further down are not looked into.
const DEPTH: usize = 4;
/// No more entries are looked at: the manifest is a proposal, and a minute is the limit.
const ENTRIES: usize = 200_000;
const MODELS: [&str; 9] = ["onnx", "pt", "pth", "pkl", "safetensors", "joblib", "h5", "gguf", "f32"];
const CONFIGS: [&str; 5] = ["toml", "yaml", "yml", "ini", "conf"];

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let folder =
        std::fs::canonicalize(&args.folder).map_err(|error| Error::io(args.folder.display(), error))?;
    let manifest = if context.manifest_path == Path::new("retoma.toml") {
        folder.join("retoma.toml")
    } else {
        context.manifest_path.clone()
    };
    if manifest.exists() && !args.force {
        let message = format!("`{}` is there already", manifest.display());
        return Err(Error::new(ErrorKind::Conflict, codes::USAGE, message).with_hint("`--force` replaces it"));
    }
    let private = folder.join(".retoma");
    let repository =
        args.backups.as_deref().map_or_else(|| Ok(private.join("repository")), paths::absolute)?;
    let password =
        args.password_file.as_deref().map_or_else(|| Ok(private.join("password")), paths::absolute)?;
    let (findings, mut left_out) = look(&folder, &repository, &password);
    let text = init(&findings);
    let origin = Origin { file_name: manifest.display().to_string(), dir: context::folder_of(&manifest)? };
    let taken = manifest::parse(&text, &origin).map(|it| it.components).unwrap_or_default();
    left_out.retain(|left| !taken.iter().any(|component| is_in(component, &folder.join(&left.path))));
    let made = make_password(&password)?;
    make_folder_of(&manifest)?;
    durable::write(&manifest, text.as_bytes(), durable::SHARED)?;
    let printer = context.printer;
    printer.data(&format!("wrote {}", manifest.display()));
    for component in &taken {
        printer.data(&format!("  {}", component_line(component, &folder)));
    }
    if !left_out.is_empty() {
        printer.data("left out; add a `[[component]]` for what the service needs:");
        for left in left_out.iter().take(SHOWN) {
            printer.data(&format!("  {}: {}", table::printable(&left.path), left.reason));
        }
        if left_out.len() > SHOWN {
            printer.data(&format!("  and {} more", left_out.len() - SHOWN));
        }
    }
    if made {
        printer.data(&format!("wrote a random password to {}", password.display()));
        printer
            .note("keep a copy of the password elsewhere: without it nobody opens the backups, not even you");
    }
    printer.note("next: look at the tiers in the manifest, then `retoma doctor` and `retoma backup`");
    let value = json!({ "manifest": manifest, "password_file": password, "password_made": made,
        "components": taken.iter().map(|it| json!({ "component": it.name, "kind": it.kind().as_str() })).collect::<Vec<_>>(),
        "left_out": left_out.iter().map(|it| json!({ "path": it.path, "reason": it.reason })).collect::<Vec<_>>() });
    printer.json("retoma.init/1", value);
    Ok(Exit::Ok)
}

/// What was seen and not taken.
#[derive(Debug)]
struct LeftOut {
    path: String,
    reason: &'static str,
}

/// So many of them are shown; documents have all.
const SHOWN: usize = 20;

fn component_line(component: &Component, folder: &Path) -> String {
    let place = match &component.source {
        Source::Files { path, .. } | Source::Sqlite { path, .. } => {
            let relative = path.strip_prefix(folder).unwrap_or(path).display().to_string();
            format!(", {}", table::printable(&relative))
        }
        Source::Postgres { .. } | Source::Redis { .. } => String::new(),
    };
    format!("component {}: {}, {}{place}", component.name, component.kind(), component.tier.as_str())
}

fn is_in(component: &Component, path: &Path) -> bool {
    match &component.source {
        Source::Files { path: root, .. } | Source::Sqlite { path: root, .. } => path.starts_with(root),
        Source::Postgres { .. } | Source::Redis { .. } => false,
    }
}

fn make_password(path: &Path) -> Result<bool> {
    if path.exists() {
        return Ok(false);
    }
    make_folder_of(path)?;
    retoma_control::open::make_password(path).map(|_| true)
}

fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Error::io(folder.display(), error))
}

fn look(folder: &Path, repository: &Path, password: &Path) -> (Findings, Vec<LeftOut>) {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let findings = Findings {
        service_name: name,
        dir: folder.to_owned(),
        repository_dir: repository.display().to_string(),
        password_file: password.display().to_string(),
        ..Findings::default()
    };
    let mut walk =
        Walk { root: folder, ours: [repository, password], left: ENTRIES, findings, out: Vec::new() };
    walk.folder(folder, 0);
    let Walk { mut findings, mut out, left, .. } = walk;
    if left == 0 {
        out.push(LeftOut { path: ".".to_owned(), reason: "there are more entries than were looked at" });
    }
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        if value.starts_with("postgres://") || value.starts_with("postgresql://") {
            findings.postgres_variables.push(name.to_owned());
        } else if value.starts_with("redis://") || value.starts_with("rediss://") {
            findings.redis_variables.push(name.to_owned());
        }
    }
    (findings, out)
}

/// A look at a folder and those in it.
struct Walk<'a> {
    root: &'a Path,
    /// The repository and the password: nobody misses them.
    ours: [&'a Path; 2],
    /// So many entries more are looked at.
    left: usize,
    findings: Findings,
    out: Vec<LeftOut>,
}

impl Walk<'_> {
    /// Looks at a folder; one that is a kind of data as a whole is not looked into.
    fn folder(&mut self, folder: &Path, depth: usize) {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return self.leave(folder, "it cannot be read");
        };
        let mut paths: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).take(self.left).collect();
        paths.sort();
        self.left -= paths.len();
        for path in paths {
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            if self.ours.contains(&path.as_path()) || path.ends_with(".retoma") {
                continue;
            }
            if metadata.is_dir() {
                self.subfolder(&path, depth);
            } else if metadata.is_file() {
                self.file(&path, metadata.len(), depth);
            } else if metadata.is_symlink() {
                self.leave(&path, "a link: what it leads to is taken where it lies");
            } else {
                self.leave(&path, "neither a file nor a folder");
            }
        }
    }

    fn subfolder(&mut self, path: &Path, depth: usize) {
        let name = lower(path.file_name());
        let found =
            |walk: &mut Self| FoundPath { path: walk.relative(path), size_bytes: size(path, &mut walk.left) };
        if name.starts_with('.') {
            return self.leave(path, "hidden");
        }
        match name.as_str() {
            "node_modules" | "target" | "venv" | "__pycache__" => self.leave(path, "made anew by a build"),
            "models" | "model" | "weights" => {
                let found = found(self);
                self.findings.models.push(found);
            }
            "logs" | "log" => {
                let found = found(self);
                self.findings.logs.push(found);
            }
            "config" | "conf" | "etc" => {
                let found = found(self);
                self.findings.configs.push(found);
            }
            "uploads" | "media" | "storage" => {
                let found = found(self);
                self.findings.data.push(found);
            }
            _ if depth < DEPTH => self.folder(path, depth + 1),
            _ => self.leave(path, "too far down to be looked into"),
        }
    }

    fn file(&mut self, path: &Path, size_bytes: u64, depth: usize) {
        let (name, extension) = (lower(path.file_name()), lower(path.extension()));
        let found = FoundPath { path: self.relative(path), size_bytes };
        if is_sqlite(path) {
            self.findings.sqlite.push(found);
        } else if MODELS.contains(&extension.as_str()) {
            self.findings.models.push(found);
        } else if name == "retoma.toml" || ["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end))
        {
            // The manifest is backed up by itself, and these with their database.
        } else if depth == 0 && CONFIGS.contains(&extension.as_str()) {
            self.findings.configs.push(found);
        } else if name.starts_with('.') {
            self.leave(path, "hidden");
        } else {
            self.leave(path, "no database, model or configuration by its name or contents");
        }
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.root).unwrap_or(path).display().to_string()
    }

    fn leave(&mut self, path: &Path, reason: &'static str) {
        let path = self.relative(path);
        self.out.push(LeftOut { path, reason });
    }
}

fn lower(name: Option<&std::ffi::OsStr>) -> String {
    name.map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn is_sqlite(path: &Path) -> bool {
    let mut head = [0; 16];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && &head == b"SQLite format 3\0"
}

fn size(folder: &Path, left: &mut usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let mut total = 0;
    for entry in entries.flatten() {
        if *left == 0 {
            break;
        }
        *left -= 1;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => total += size(&entry.path(), left),
            Ok(metadata) => total += metadata.len(),
            Err(_) => {}
        }
    }
    total
}
