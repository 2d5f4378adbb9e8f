//! The first manifest of a folder, from what was found there. Looking into the folder is not done here.
//!
//! Whatever is found, the text is a manifest without problems: what cannot be written into one is left out.

use super::address;
use super::check;
use super::paths;
use super::secret_ref::SecretRef;
use super::source::is_printable;
use super::tier::Tier;
use crate::units::ByteSize;
use std::path::{Path, PathBuf};

/// What was found in a folder. Paths are absolute or relative to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// A name for the service, for example that of the folder; need not have the form of a name.
    pub service_name: String,
    /// The folder itself, where the manifest will be; absolute.
    pub dir: PathBuf,
    /// Where backups may go; absolute.
    pub repository_dir: String,
    /// Where the repository's password is or will be; absolute, or relative to the folder.
    pub password_file: String,
    /// SQLite databases.
    pub sqlite: Vec<FoundPath>,
    /// Models: files such as `*.onnx`, `*.pt`, `*.safetensors`, or the folders that hold them.
    pub models: Vec<FoundPath>,
    /// Folders with other data.
    pub data: Vec<FoundPath>,
    /// Files or folders with configuration.
    pub configs: Vec<FoundPath>,
    /// Files or folders with logs.
    pub logs: Vec<FoundPath>,
    /// Names of environment variables that hold a PostgreSQL address; their values never come here.
    pub postgres_variables: Vec<String>,
    /// Names of environment variables that hold a Redis address.
    pub redis_variables: Vec<String>,
}

/// A file or folder that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundPath {
    /// Where.
    pub path: String,
    /// How much it holds, in bytes.
    pub size_bytes: u64,
}

/// A component to be.
#[derive(Debug)]
struct Candidate {
    name: String,
    kind: &'static str,
    tier: Tier,
    /// `path = "…"` or `url = "…"`.
    place: String,
    comment: String,
    path: Option<PathBuf>,
}

const INTRODUCTION: &str = "\
# What Retoma protects, and how. `docs/manifest.md` explains every key; `retoma doctor` says what would fail later.
# Look at each tier: it promises how much may be lost (RPO) and how long the return may take (RTO).
#   critical  RTO 15m  RPO 5m        high  RTO 1h  RPO 15m
#   medium    RTO 4h   RPO 1h        low   RTO 1d  RPO 6h
version = 1
";

const SERVICE_EXAMPLE: &str = "\
# With these, drills start the restored service and ask it from outside:
# health = \"http://127.0.0.1:8080/healthz\"
# start = [\"./bin/server\", \"--port\", \"8080\"]
# ready_seconds = 30
";

const WAL_EXAMPLE: &str = "\
# Streamed, its WAL is stored within a second, and a backup each day is enough; docs/wal.md says what the server needs:
# [component.wal]
# mode = \"stream\"
";

const ENDING: &str = "
# A check of a component stands after it. It runs on the restored copy, in every drill:
# [[component.check]]
# sql = \"SELECT count(*) FROM orders WHERE total < 0\"
# expect = \"0\"

# Without rules, everything of the last 30 days is kept:
# [retention]
# daily = 30
# monthly = 12
";

/// The text of a commented manifest for what was found.
pub fn init(findings: &Findings) -> String {
    let service = name_from(&findings.service_name, "app", &[]);
    let repository = repository_dir(findings, &service);
    let mut text = String::from(INTRODUCTION);
    push(&mut text, format_args!("\n[service]\nname = {}\n{SERVICE_EXAMPLE}", quote(&service)));
    let password = Some(format!("file:{}", findings.password_file))
        .filter(|reference| SecretRef::parse(reference).is_ok())
        .unwrap_or_else(|| "file:/etc/retoma/password".into());
    text.push_str("\n# A backup on the same disk burns with it: add a second repository on another disk (file:///mnt/other/repository).\n");
    push(
        &mut text,
        format_args!("[[repository]]\nname = \"local\"\nurl = {}\n", quote(&format!("file://{repository}"))),
    );
    push(&mut text, format_args!("password = {} # or env:NAME; keep a copy elsewhere\n", quote(&password)));
    let candidates = candidates(findings, Path::new(&repository));
    for candidate in &candidates {
        component(&mut text, candidate, &candidates, Path::new(&repository));
    }
    text.push_str(ENDING);
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.push_str(&line.to_string());
}

fn repository_dir(findings: &Findings, service: &str) -> String {
    let dir = &findings.repository_dir;
    if address::repository(&format!("file://{dir}")).is_ok() {
        dir.clone()
    } else {
        format!("/var/lib/retoma/{service}")
    }
}

fn component(text: &mut String, candidate: &Candidate, all: &[Candidate], repository: &Path) {
    if !candidate.comment.is_empty() {
        push(text, format_args!("\n# {}", candidate.comment));
    }
    let Candidate { name, kind, tier, place, .. } = candidate;
    push(
        text,
        format_args!(
            "\n[[component]]\nname = {}\nkind = \"{kind}\"\ntier = \"{tier}\"\n{place}\n",
            quote(name)
        ),
    );
    if *kind == "postgres" {
        text.push_str(WAL_EXAMPLE);
    }
    let patterns = excludes(candidate, all, repository);
    if !patterns.is_empty() {
        let patterns: Vec<_> = patterns.iter().map(|pattern| quote(pattern)).collect();
        text.push_str("# Backed up by itself, or not to be backed up:\n");
        push(text, format_args!("exclude = [{}]\n", patterns.join(", ")));
    }
}

/// What lies inside a folder and is another component, or the repository. A database that is in use must not be copied
/// as a plain file.
fn excludes(candidate: &Candidate, all: &[Candidate], repository: &Path) -> Vec<String> {
    let Some(outer) = candidate.path.as_ref().filter(|_| candidate.kind == "files") else {
        return Vec::new();
    };
    let mut patterns = Vec::new();
    for other in all {
        let rest =
            other.path.as_ref().and_then(|inner| paths::below(outer, inner)).filter(|rest| !rest.is_empty());
        let Some(rest) = rest else { continue };
        let endings: &[&str] = if other.kind == "sqlite" { &["", "-wal", "-shm", "-journal"] } else { &[""] };
        patterns.extend(endings.iter().map(|ending| paths::anchored_pattern(&format!("{rest}{ending}"))));
    }
    let rest = paths::below(outer, repository).filter(|rest| !rest.is_empty());
    patterns.extend(rest.map(|rest| paths::anchored_pattern(&rest)));
    patterns.sort();
    patterns.dedup();
    patterns
}

fn candidates(findings: &Findings, repository: &Path) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for (variables, kind, name, tier) in [
        (&findings.postgres_variables, "postgres", "database", Tier::Critical),
        (&findings.redis_variables, "redis", "cache", Tier::High),
    ] {
        for variable in variables {
            add_server(&mut found, variable, kind, name, tier);
        }
    }
    for (paths, kind, fallback, tier) in [
        (&findings.sqlite, "sqlite", "database", Tier::Critical),
        (&findings.models, "files", "models", Tier::High),
        (&findings.data, "files", "data", Tier::High),
        (&findings.configs, "files", "config", Tier::Medium),
        (&findings.logs, "files", "logs", Tier::Low),
    ] {
        for path in paths {
            let size = Some(ByteSize(path.size_bytes));
            add_path(&mut found, &findings.dir, repository, &path.path, (kind, fallback, tier), size);
        }
    }
    if found.is_empty() {
        // A manifest without a component protects nothing and is refused; begin with the whole folder.
        let path = if paths::resolve(&findings.dir, Path::new(".")) == repository { "data" } else { "." };
        add_path(&mut found, &findings.dir, repository, path, ("files", "data", Tier::High), None);
    }
    found
}

fn add_server(found: &mut Vec<Candidate>, variable: &str, kind: &'static str, name: &str, tier: Tier) {
    let reference = format!("env:{variable}");
    if SecretRef::parse(&reference).is_err()
        || found.iter().any(|other| other.place.contains(&quote(&reference)))
    {
        return;
    }
    found.push(Candidate {
        name: name_from(name, name, found),
        kind,
        tier,
        place: format!("url = {}", quote(&reference)),
        comment: format!("The address, with its password, is read from the variable {variable}."),
        path: None,
    });
}

fn add_path(
    found: &mut Vec<Candidate>,
    dir: &Path,
    repository: &Path,
    path: &str,
    (kind, fallback, tier): (&'static str, &str, Tier),
    size: Option<ByteSize>,
) {
    if path.is_empty() || path.contains('\0') {
        return;
    }
    // A name that starts with `~` is refused in manifests, since a shell would read it otherwise.
    let written = if path.starts_with('~') { format!("./{path}") } else { path.to_owned() };
    let resolved = paths::resolve(dir, Path::new(&written));
    let is_known = found.iter().any(|other| other.path.as_ref() == Some(&resolved));
    if is_known || resolved == paths::resolve(Path::new("/"), repository) {
        return;
    }
    let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or(fallback);
    found.push(Candidate {
        name: name_from(stem, fallback, found),
        kind,
        tier,
        place: format!("path = {}", quote(&written)),
        comment: size.map(|size| format!("Holds {size} now.")).unwrap_or_default(),
        path: Some(resolved),
    });
}

/// A name made from `text`, or else `fallback`, that none of `found` has.
fn name_from(text: &str, fallback: &str, found: &[Candidate]) -> String {
    const ROOM_FOR_NUMBER: usize = 23;
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = text.chars().map(word).take(check::NAME_LIMIT - ROOM_FOR_NUMBER).collect();
    let name = match name.trim_matches('-') {
        "" => fallback.to_owned(),
        name => name.to_owned(),
    };
    let is_free = |name: &str| {
        check::is_name(name)
            && !check::RESERVED.contains(&name)
            && found.iter().all(|candidate| candidate.name != name)
    };
    if is_free(&name) {
        return name;
    }
    let numbered = (2usize..).map(|number| format!("{name}-{number}"));
    numbered.into_iter().find(|name| is_free(name)).unwrap_or(name)
}

/// `text` as a TOML string on one line.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if is_printable(c) => quoted.push(c),
            c => push(&mut quoted, format_args!("\\U{:08X}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}
