//! `retoma doctor`: finds now what would fail later, each with its fix. Changes nothing.

use crate::context::{Context, Loaded};
use crate::exit::Exit;
use crate::output;
use retoma_control::backup;
use retoma_control::wal::stream;
use retoma_core::manifest::{Component, Manifest, ServerUrl, Source};
use retoma_core::units::{ByteSize, counted};
use retoma_core::{Error, Result};
use retoma_repo::Repository;
use retoma_repo::ops::find::{self, Selector};
use retoma_repo::ops::keys;
use retoma_sources::postgres::{Examined, examine};
use serde_json::json;
use std::path::Path;

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
    for configured in &manifest.repositories {
        let subject = format!("repository {}", configured.name);
        if let Some(folder) = configured.folder() {
            check_space(&mut findings, &subject, folder);
        }
        match retoma_control::open::open_repository(configured, false) {
            Ok(opened) => check_repository(&mut findings, &subject, &opened.repository, &manifest),
            Err(error) if error.code() == retoma_core::error::codes::NO_REPOSITORY => {
                findings.warn(&subject, "there is none yet", "the first `retoma backup` makes it");
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
        Source::Postgres { url } => {
            check_postgres(findings, &subject, url);
            return check_wal(findings, &subject, component);
        }
        Source::Redis { .. } => return check_redis(findings, &subject, component),
    };
    let readable =
        if path.is_dir() { std::fs::read_dir(path).map(drop) } else { std::fs::File::open(path).map(drop) };
    for left in retoma_control::recover::left_beside(path) {
        findings.warn(
            &subject,
            format!("`{}` was left by a recovery in place that was killed", left.display()),
            "run `retoma recover --in-place` again, which first brings the previous data back and removes it",
        );
    }
    match readable {
        Ok(()) => findings.good(&subject, format!("`{}` can be read", path.display())),
        Err(error) => findings.bad(&subject, &Error::io(path.display(), error)),
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

fn check_postgres(findings: &mut Findings, subject: &str, url: &ServerUrl) {
    match backup::server_address(url).and_then(|address| examine(&address)) {
        Ok(Examined { server, cautions }) => {
            let major = server.version_num / 10_000;
            findings.good(subject, format!("PostgreSQL {major} in `{}`", server.data_directory));
            for (what, fix) in cautions {
                findings.warn(subject, what, fix);
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

/// Less than this is warned of.
const SPACE_BYTES: u64 = 1 << 30;

fn check_space(findings: &mut Findings, subject: &str, folder: &Path) {
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            if free < SPACE_BYTES {
                findings.warn(
                    subject,
                    format!("{} free at `{}`", ByteSize(free), existing.display()),
                    "make room, or move the repository",
                );
            } else {
                findings.good(subject, format!("{} free", ByteSize(free)));
            }
        }
        Err(error) => findings.bad(subject, &Error::io(existing.display(), error.into())),
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
                let age = now.as_second() - snapshot.time.0.as_second();
                let limit = component.objectives.rpo.as_seconds();
                if u64::try_from(age).is_ok_and(|age| age <= limit) {
                    findings.good(&subject, format!("snapshot {} is {age} s old", id.short()));
                } else {
                    let text = format!("the newest complete snapshot is {age} s old, the RPO is {limit} s");
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
