//! `retoma init`: a first manifest from what is found in a folder.

use crate::context::Context;
use crate::exit::Exit;
use retoma_control::durable;
use retoma_core::manifest::{Findings, FoundPath, init};
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
    let absolute = |path: &Path| std::path::absolute(path).map_err(|error| Error::io(path.display(), error));
    let repository = args.backups.as_deref().map_or_else(|| Ok(private.join("repository")), absolute)?;
    let password = args.password_file.as_deref().map_or_else(|| Ok(private.join("password")), absolute)?;
    let findings = look(&folder, &repository, &password);
    let text = init(&findings);
    let made = make_password(&password)?;
    make_folder_of(&manifest)?;
    durable::write(&manifest, text.as_bytes(), durable::SHARED)?;
    let printer = context.printer;
    let found = [&findings.sqlite, &findings.models, &findings.data, &findings.configs, &findings.logs];
    printer.data(&format!("wrote {}", manifest.display()));
    for (what, list) in ["SQLite", "models", "data", "config", "logs"].iter().zip(found) {
        for found in list {
            printer.data(&format!("  {what}: {}", found.path));
        }
    }
    if made {
        printer.data(&format!("wrote a random password to {}", password.display()));
        printer
            .note("keep a copy of the password elsewhere: without it nobody opens the backups, not even you");
    }
    printer.note("next: look at the tiers in the manifest, then `retoma doctor` and `retoma backup`");
    let value = json!({ "manifest": manifest, "password_file": password, "password_made": made });
    printer.json("retoma.init/1", value);
    Ok(Exit::Ok)
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

fn look(folder: &Path, repository: &Path, password: &Path) -> Findings {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut findings = Findings {
        service_name: name,
        dir: folder.to_owned(),
        repository_dir: repository.display().to_string(),
        password_file: password.display().to_string(),
        ..Findings::default()
    };
    walk(folder, folder, 0, &mut ENTRIES.clone(), &mut findings);
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        if value.starts_with("postgres://") || value.starts_with("postgresql://") {
            findings.postgres_variables.push(name.to_owned());
        } else if value.starts_with("redis://") || value.starts_with("rediss://") {
            findings.redis_variables.push(name.to_owned());
        }
    }
    findings
}

/// Looks at a folder; one that is a kind of data as a whole is not looked into.
fn walk(root: &Path, folder: &Path, depth: usize, left: &mut usize, findings: &mut Findings) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).take(*left).collect();
    paths.sort();
    *left -= paths.len();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let relative = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let found = |size_bytes| FoundPath { path: relative.clone(), size_bytes };
        if metadata.is_dir() {
            if name.starts_with('.')
                || ["node_modules", "target", "venv", "__pycache__"].contains(&name.as_str())
            {
                continue;
            }
            match name.as_str() {
                "models" | "model" | "weights" => findings.models.push(found(size(&path, left))),
                "logs" | "log" => findings.logs.push(found(size(&path, left))),
                "config" | "conf" | "etc" => findings.configs.push(found(size(&path, left))),
                "uploads" | "media" | "storage" => findings.data.push(found(size(&path, left))),
                _ if depth < DEPTH => walk(root, &path, depth + 1, left, findings),
                _ => {}
            }
        } else if metadata.is_file() {
            let extension = path
                .extension()
                .map(|extension| extension.to_string_lossy().to_lowercase())
                .unwrap_or_default();
            if is_sqlite(&path) {
                findings.sqlite.push(found(metadata.len()));
            } else if MODELS.contains(&extension.as_str()) {
                findings.models.push(found(metadata.len()));
            } else if depth == 0 && CONFIGS.contains(&extension.as_str()) && name != "retoma.toml" {
                findings.configs.push(found(metadata.len()));
            }
        }
    }
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
