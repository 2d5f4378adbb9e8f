//! `retoma doctor`: finds now what would fail later, each with its fix. Changes nothing.

mod locks;
mod space;

use crate::context::{Context, Loaded};
use crate::exit::Exit;
use crate::output;
use retoma_control::backup;
use retoma_control::wal::stream;
use retoma_core::manifest::{BackupWay, Component, Manifest, ServerUrl, Source};
use retoma_core::units::{ByteSize, counted, span};
use retoma_core::{Error, Result};
use retoma_repo::Repository;
use retoma_repo::ops::find::{self, Selector};
use retoma_repo::ops::keys;
use retoma_sources::postgres::{Examined, examine, examine_dump, examine_stream};
use serde_json::json;
use space::Need;
use std::path::Path;
use std::time::Duration;

/// One finding.
#[derive(Debug)]
struct Finding {
    state: State,
    subject: String,
    text: String,
    fix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Warning,
    Bad,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "problem",
        }
    }
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, subject: &str, text: impl Into<String>) {
        self.add(State::Good, subject, text.into(), String::new());
    }

    fn warn(&mut self, subject: &str, text: impl Into<String>, fix: impl Into<String>) {
        self.add(State::Warning, subject, text.into(), fix.into());
    }

    fn bad(&mut self, subject: &str, error: &Error) {
        let fix = output::next_step(error).into_owned();
        self.add(State::Bad, subject, format!("{error} [{}]", error.code()), fix);
    }

    fn add(&mut self, state: State, subject: &str, text: String, fix: String) {
        self.0.push(Finding { state, subject: subject.to_owned(), text, fix });
    }
}

pub(super) fn run(context: &Context) -> Result<Exit> {
    let Loaded { manifest, .. } = context.manifest()?;
    let mut findings = Findings::default();
    findings.good(
        "manifest",
        format!(
            "{}, {}; every schedule meets its tier",
            counted(manifest.components.len(), "component", "components"),
            counted(manifest.repositories.len(), "repository", "repositories")
        ),
    );
    check_clock(&mut findings);
    manifest.components.iter().for_each(|component| check_source(&mut findings, component));
    check_start(&mut findings, &manifest);
    for configured in &manifest.repositories {
        let subject = format!("repository {}", configured.name);
        let opened = retoma_control::open::open_repository(configured, false);
        if let Some(folder) = configured.folder() {
            let goes_there = |component: &&Component| component.repositories.contains(&configured.name);
            let components: Vec<_> = manifest.components.iter().filter(goes_there).collect();
            let repository = opened.as_ref().ok().map(|opened| &opened.repository);
            check_space(&mut findings, &subject, folder, &space::need(repository, &components));
        }
        match opened {
            Ok(opened) => {
                check_repository(&mut findings, &subject, &opened.repository, &manifest);
                locks::check(&mut findings, &subject, configured, Some(&opened.repository));
            }
            Err(error) if error.code() == retoma_core::error::codes::NO_REPOSITORY => {
                findings.warn(&subject, "there is none yet", "the first `retoma backup` makes it");
                locks::check(&mut findings, &subject, configured, None);
            }
            Err(error) => findings.bad(&subject, &error),
        }
    }
    Ok(print(context, &findings))
}

fn check_clock(findings: &mut Findings) {
    let now = jiff::Timestamp::now();
    // A clock before this program was made is wrong, and retention and evidence depend on it.
    if now.as_second() < 1_760_000_000 {
        findings.warn("clock", format!("it says {now}"), "set the clock, and keep it with NTP");
    } else {
        findings.good("clock", now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
}

fn check_source(findings: &mut Findings, component: &Component) {
    let subject = format!("component {}", component.name);
    let path = match &component.source {
        Source::Files { path, .. } | Source::Sqlite { path, .. } => path,
        Source::Postgres { url } if component.backup == BackupWay::Logical => {
            return check_dump(findings, &subject, url);
        }
        Source::Postgres { url } => {
            check_postgres(findings, &subject, url, component.backup);
            return check_wal(findings, &subject, component);
        }
        Source::Redis { .. } => return check_redis(findings, &subject, component),
    };
    let readable =
        if path.is_dir() { std::fs::read_dir(path).map(drop) } else { std::fs::File::open(path).map(drop) };
    warn_of_left(findings, &subject, path);
    match readable {
        Ok(()) => findings.good(&subject, format!("`{}` can be read", path.display())),
        Err(error) => findings.bad(&subject, &Error::io(path.display(), error)),
    }
}

fn warn_of_left(findings: &mut Findings, subject: &str, live: &Path) {
    for left in retoma_control::recover::left_beside(live) {
        findings.warn(
            subject,
            format!("`{}` was left by a recovery in place that was killed", left.display()),
            "run `retoma recover --in-place` again, which first brings the previous data back and removes it",
        );
    }
}

/// Beside the data directory, and beside the server's folder in each tablespace.
fn warn_of_left_by_server(findings: &mut Findings, subject: &str, data: &Path) {
    warn_of_left(findings, subject, data);
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    for space in entries(&data.join("pg_tblspc")) {
        for folder in entries(&space.path()).map(|entry| entry.path()) {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("PG_") && !name.contains(".retoma-") {
                warn_of_left(findings, subject, &folder);
            }
        }
    }
}

fn check_redis(findings: &mut Findings, subject: &str, component: &Component) {
    match backup::doubts(component) {
        Ok(doubts) if doubts.is_empty() => {
            findings.good(subject, "its server answers, and its settings fit");
        }
        Ok(doubts) => {
            for doubt in doubts {
                findings.warn(subject, doubt.to_string(), doubt.fix());
            }
        }
        Err(error) => findings.bad(subject, &error),
    }
}

fn check_postgres(findings: &mut Findings, subject: &str, url: &ServerUrl, way: BackupWay) {
    let examined = backup::server_address(url).and_then(|address| match way {
        BackupWay::Stream => examine_stream(&address),
        BackupWay::Local | BackupWay::Logical => examine(&address),
    });
    match examined {
        Ok(Examined { server, cautions }) => {
            let major = server.version_num / 10_000;
            findings.good(subject, format!("PostgreSQL {major} in `{}`", server.data_directory));
            warn_of_left_by_server(findings, subject, Path::new(&server.data_directory));
            for (what, fix) in cautions {
                findings.warn(subject, what, fix);
            }
        }
        Err(error) => findings.bad(subject, &error),
    }
}

fn check_dump(findings: &mut Findings, subject: &str, url: &ServerUrl) {
    match backup::server_address(url).and_then(|address| examine_dump(&address)) {
        Ok((major, left_out)) => {
            findings.good(subject, format!("PostgreSQL {major} can be dumped"));
            for what in left_out {
                findings.warn(subject, what, "see `docs/postgres.md`, *By dumps*, for what that means");
            }
        }
        Err(error) => findings.bad(subject, &error),
    }
}

/// A server that cannot be asked has been reported already.
fn check_wal(findings: &mut Findings, subject: &str, component: &Component) {
    if let Ok(Some(found)) = stream::examine(component) {
        found.good.into_iter().for_each(|text| findings.good(subject, text));
        found.cautions.into_iter().for_each(|(what, fix)| findings.warn(subject, what, fix));
    }
}

/// Less than this is warned of where it is not known how much is needed.
const SPACE_BYTES: u64 = 1 << 30;

fn check_space(findings: &mut Findings, subject: &str, folder: &Path, need: &Need) {
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(existing) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => return findings.bad(subject, &Error::io(existing.display(), error.into())),
    };
    let unknown = if need.unknown.is_empty() {
        String::new()
    } else {
        format!("; how much {} needs is not known", need.unknown.join(", "))
    };
    let text = format!(
        "{} free at `{}`, and the next backup stores at most {}{unknown}",
        ByteSize(free),
        existing.display(),
        ByteSize(need.bytes)
    );
    if free < need.bytes || (free < SPACE_BYTES && !need.unknown.is_empty()) {
        findings.warn(subject, text, "make room there, or move the repository to a larger disk");
    } else {
        findings.good(subject, text);
    }
}

/// What the operating system brings with it; a blank machine has it too, or installs it.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix", "/dev"];

/// A file that the service is started with and that no component holds is gone after a disaster.
fn check_start(findings: &mut Findings, manifest: &Manifest) {
    let Some(start) = &manifest.service.start else { return };
    // A program without a slash is looked up in `PATH`.
    let program = Some(start.program.as_str()).filter(|program| program.contains('/'));
    let arguments = start.arguments.iter().map(|word| word.split_once('=').map_or(word.as_str(), |it| it.1));
    for word in program.into_iter().chain(arguments).filter(|word| !word.is_empty()) {
        let Ok(file) = retoma_control::paths::absolute(&manifest.dir().join(word)) else { continue };
        let is_ours = SYSTEM.iter().all(|system| !file.starts_with(system)) && file.is_file();
        if is_ours && !manifest.components.iter().any(|component| holds(component, &file)) {
            findings.warn(
                "service",
                format!("`start` names `{}`, which is in no component: a recovery does not bring it back", file.display()),
                format!(
                    "add a `[[component]]` of kind `files` with `path = \"{}\"` to the manifest, or install it before a recovery",
                    file.display()
                ),
            );
        }
    }
}

fn holds(component: &Component, file: &Path) -> bool {
    match &component.source {
        Source::Files { path, .. } | Source::Sqlite { path, .. } => {
            retoma_control::paths::absolute(path).is_ok_and(|path| file.starts_with(path))
        }
        Source::Postgres { .. } | Source::Redis { .. } => false,
    }
}

fn check_repository(findings: &mut Findings, subject: &str, repository: &Repository, manifest: &Manifest) {
    match keys::list(repository) {
        Ok(list) if list.len() < 2 => findings.warn(
            subject,
            "it has one key: who loses that password loses everything",
            "add a second one with `retoma key add` and keep it elsewhere",
        ),
        Ok(list) => findings.good(subject, format!("it opens; {}", counted(list.len(), "key", "keys"))),
        Err(error) => findings.bad(subject, &error),
    }
    let now = jiff::Timestamp::now();
    for component in &manifest.components {
        let subject = format!("component {}", component.name);
        let selector = Selector { component: Some(component.name.clone()), ..Selector::default() };
        match find::snapshot(repository, &selector) {
            Ok((id, snapshot)) => {
                let age = u64::try_from(now.as_second() - snapshot.time.0.as_second()).unwrap_or_default();
                let (age, limit) = (Duration::from_secs(age), component.snapshot_age_limit());
                if age <= limit.to_std() {
                    findings.good(&subject, format!("snapshot {} is {} old", id.short(), span(age)));
                } else {
                    let what =
                        if component.schedule.shipped_within.is_some() { "it may be" } else { "the RPO is" };
                    let limit = limit.in_words();
                    let text = format!("the newest complete snapshot is {} old, {what} {limit}", span(age));
                    findings.warn(
                        &subject,
                        text,
                        "run `retoma backup` by a timer at the manifest's interval",
                    );
                }
            }
            Err(error) => findings.warn(&subject, error.to_string(), "run `retoma backup`"),
        }
    }
}

/// Problems end with 1; warnings don't.
fn print(context: &Context, findings: &Findings) -> Exit {
    for finding in &findings.0 {
        let fix =
            if finding.fix.is_empty() { String::new() } else { format!("\n         fix: {}", finding.fix) };
        context.printer.data(&format!(
            "{:<8} {}: {}{fix}",
            finding.state.as_str(),
            finding.subject,
            finding.text
        ));
    }
    let list = findings.0.iter().map(|finding| {
        json!({ "state": finding.state.as_str(), "subject": finding.subject, "text": finding.text, "fix": finding.fix })
    });
    let bad = findings.0.iter().any(|finding| finding.state == State::Bad);
    context.printer.json("retoma.doctor/1", json!({ "healthy": !bad, "findings": list.collect::<Vec<_>>() }));
    if bad { Exit::Failed } else { Exit::Ok }
}
