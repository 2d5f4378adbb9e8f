//! The whole story in a folder of its own: seed a service, run it, back it up, destroy it, bring it back, prove it.
//!
//! ```text
//! BASE/run-<time>-<pid>/
//!   state.json     written before anything else: whose run this is, and whether it has ended
//!   service/       the seeded service with its manifest
//!   repository/    password   evidence.key
//!   report.html    report.json
//! ```
//! Invariants: nothing is written outside the run's folder; whatever ends the run ends its processes ([`Service`]'s
//! supervisor sees to that even after SIGKILL); the next run removes what earlier ones left, and only what belongs to a
//! run whose process is dead. The last finished run stays until then, to be looked at.
//!
//! [`Service`]: crate::service::Service

mod server;

use crate::drill::{self, Context, Patient, Scenario, port};
use crate::durable;
use crate::interrupt::{Interrupt, Stopwatch};
use crate::open::{make_password, open_address};
use crate::service::{Identity, KILL_LIMIT, Supervisor, kill_if, processes_in, still_there};
use crate::watch::{Note, Watch};
use retoma_core::drill::DrillReport;
use retoma_core::manifest::{self, Command, Manifest, Origin, quote};
use retoma_core::render::{Language, report};
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::evidence::SigningKey;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const STATE: &str = "state.json";
const STATE_SCHEMA: &str = "retoma.demo-state/1";
const RUN: &str = "run-";
/// What stands for the port in [`Demo::start`].
const PORT: &str = "{port}";

/// A demo to be run.
#[derive(Clone, Copy)]
pub struct Demo<'a> {
    /// The folder that runs get their folders in; it is made.
    pub base: &'a Path,
    /// What breaks.
    pub scenario: Scenario,
    /// Starts the sample service in its folder; `{port}` in an argument becomes a free port.
    pub start: &'a Command,
    /// Makes the sample service's folder: `config/`, `data/marabet.sqlite`, `models/`, `logs/`.
    pub seed: &'a dyn Fn(&Path) -> Result<()>,
    /// Starts services.
    pub supervisor: &'a Supervisor,
    /// The program's version, for the result.
    pub tool_version: &'a str,
    /// The language of the page.
    pub language: Language,
    /// Marks between two steps; [`drill::MARKS`] for a real run.
    pub marks: usize,
    /// Hears what is done.
    pub watch: &'a dyn Watch,
    /// Ends every wait.
    pub interrupt: &'a Interrupt,
}

impl Demo<'_> {
    /// What its drill runs with.
    fn context<'a>(&'a self, repeat: &'a str) -> Context<'a> {
        Context {
            supervisor: self.supervisor,
            tool_version: self.tool_version,
            repeat,
            watch: self.watch,
            interrupt: self.interrupt,
            clock: Stopwatch::start(),
            marks: self.marks,
        }
    }
}

impl std::fmt::Debug for Demo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demo")
            .field("base", &self.base)
            .field("scenario", &self.scenario)
            .finish_non_exhaustive()
    }
}

/// What a demo leaves.
#[derive(Debug)]
pub struct Shown {
    /// The result, with its verdict.
    pub report: DrillReport,
    /// The run's folder.
    pub folder: PathBuf,
    /// The page.
    pub page: PathBuf,
    /// The result as JSON.
    pub json: PathBuf,
    /// The manifest's file, for what is tried next: its repository holds two backups of everything.
    pub manifest_path: PathBuf,
    /// The manifest, with a key that signs.
    pub manifest: Manifest,
}

/// What a run's `state.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    schema: String,
    /// The process that runs the demo.
    owner: Identity,
    /// What a process of the run has in its command line: the program and the first of its arguments.
    words: Vec<Vec<String>>,
    ended: bool,
}

/// Cleans up after earlier runs, then runs the demo.
///
/// # Errors
/// As [`drill::run`]; `R0713` for a scenario that needs several repositories; what seeding says. After an error the folder stays for a look, after a stop it goes.
pub fn run(demo: &Demo<'_>) -> Result<Shown> {
    if demo.scenario.is_of_server() {
        return server::run(demo);
    }
    if demo.scenario.extent().is_some() {
        return Err(drill::needs_several(demo.scenario));
    }
    in_a_run(demo, |folder| in_folder(demo, folder))
}

/// Cleans up, then does `work` in a new run's folder.
fn in_a_run(demo: &Demo<'_>, work: impl FnOnce(&Path) -> Result<Shown>) -> Result<Shown> {
    make_folder(demo.base)?;
    for removed in clean_up(demo.base)? {
        let what = format!("removed what an earlier run left in `{}`", removed.display());
        demo.watch.note(&Note::Doing(what));
    }
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S").to_string();
    let folder = demo.base.join(format!("{RUN}{now}-{}", std::process::id()));
    make_folder(&folder)?;
    let folder = std::fs::canonicalize(&folder).map_err(|error| Error::io(folder.display(), error))?;
    write_state(demo, &folder, false)?;
    let shown = work(&folder);
    match &shown {
        Err(error) if error.kind() == ErrorKind::Cancelled => remove(&folder)?,
        _ => write_state(demo, &folder, true)?,
    }
    shown
}

fn in_folder(demo: &Demo<'_>, folder: &Path) -> Result<Shown> {
    let service = folder.join("service");
    let doing = |what: &str| demo.watch.note(&Note::Doing(what.to_owned()));
    doing("make a service with data");
    (demo.seed)(&service).context("make the sample service")?;
    demo.interrupt.check()?;
    let password = make_password(&folder.join("password"))?;
    let key = SigningKey::generate()?;
    key.save_new(&folder.join("evidence.key"))?;
    let text = manifest_text(folder, demo.start, port::free()?, &key);
    let manifest_path = service.join(crate::backup::MANIFEST_NAME);
    durable::write(&manifest_path, text.as_bytes(), durable::SHARED)?;
    let manifest = parse(&text, &service)?;
    let repository_dir = folder.join("repository");
    doing("make a repository");
    drop(open_address(&drill::address_of(&repository_dir)?, &password, true)?);
    let patient = Patient {
        manifest,
        manifest_text: text,
        manifest_is_stored: true,
        is_part: false,
        repository_dir,
        password,
        several: None,
        scratch: folder.to_owned(),
        root: None,
        folder: None,
    };
    let repeat = format!("retoma demo --scenario {}", demo.scenario);
    let context = demo.context(&repeat);
    let report = drill::run(&patient, demo.scenario, &context)?;
    let (page, json) = (folder.join("report.html"), folder.join("report.json"));
    durable::write(&page, report::page(&report, demo.language).as_bytes(), durable::SHARED)?;
    durable::write(&json, report.to_json()?.as_bytes(), durable::SHARED)?;
    for path in [&page, &json] {
        demo.watch.note(&Note::Wrote(path.clone()));
    }
    Ok(Shown { report, folder: folder.to_owned(), page, json, manifest_path, manifest: patient.manifest })
}

fn parse(text: &str, dir: &Path) -> Result<Manifest> {
    let origin = Origin { file_name: crate::backup::MANIFEST_NAME.to_owned(), dir: dir.to_owned() };
    manifest::parse(text, &origin).map_err(|problems| {
        let first = problems.first().map(|problem| problem.message.clone()).unwrap_or_default();
        Error::internal(format!("the demo's manifest has a problem: {first}"))
    })
}

fn manifest_text(folder: &Path, start: &Command, port: u16, key: &SigningKey) -> String {
    let words = std::iter::once(&start.program).chain(&start.arguments);
    let words: Vec<String> = words.map(|word| quote(&word.replace(PORT, &port.to_string()))).collect();
    let start = words.join(", ");
    let file = |name: &str| quote(&format!("file:{}", folder.join(name).display()));
    // As it is: a manifest knows no `%20`.
    let url = format!("file://{}", folder.join("repository").display());
    let (url, password, signing_key) = (quote(&url), file("password"), file("evidence.key"));
    let public_key = quote(&key.public_key().to_string());
    let component = |name: &str, kind: &str, tier: &str, path: &str| {
        format!(
            "\n[[component]]\nname = \"{name}\"\nkind = \"{kind}\"\ntier = \"{tier}\"\npath = \"{path}\"\n"
        )
    };
    format!(
        "# The demo's manifest. `docs/manifest.md` explains every key.\nversion = 1\n\n\
         [service]\nname = \"marabet\"\nhealth = \"http://127.0.0.1:{port}/healthz\"\nstart = [{start}]\n\n\
         [[service.check]]\nurl = \"http://127.0.0.1:{port}/healthz?deep=true\"\nexpect_body = '\"healthy\":true'\n\n\
         [[repository]]\nname = \"local\"\nurl = {url}\npassword = {password}\n\
         {}\n[[component.check]]\nsql = \"SELECT count(*) > 0 FROM predictions\"\nexpect = \"1\"\n{}{}{}\n\
         [evidence]\nsigning_key = {signing_key}\npublic_key = {public_key}\n\n\
         [drill]\nmarker_url = \"http://127.0.0.1:{port}/marker\"\ntimeout_seconds = 300\n",
        component("database", "sqlite", "critical", "data/marabet.sqlite"),
        component("models", "files", "high", "models"),
        component("config", "files", "medium", "config"),
        component("logs", "files", "low", "logs"),
    )
}

fn make_folder(path: &Path) -> Result<()> {
    let failed = |error| Error::io(path.display(), error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    // In a folder that everybody may write, somebody else may have been there first.
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if found.is_dir() && found.uid() == retoma_repo::host::ids().0 {
        return Ok(());
    }
    let message = format!("`{}` is not a folder of ours", path.display());
    Err(Error::new(ErrorKind::Invalid, codes::USAGE, message).with_hint("name another with `--folder`"))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path.display(), error)),
        _ => Ok(()),
    }
}

fn write_state(demo: &Demo<'_>, folder: &Path, ended: bool) -> Result<()> {
    let owner = Identity::own().ok_or_else(|| Error::internal("this process cannot be found"))?;
    let service = [Some(demo.start.program.clone()), demo.start.arguments.first().cloned()];
    let arguments = demo.supervisor.arguments.first().map(|word| word.to_string_lossy().into_owned());
    let supervisor = [Some(demo.supervisor.program.to_string_lossy().into_owned()), arguments];
    let words =
        [service, supervisor].into_iter().map(|words| words.into_iter().flatten().collect()).collect();
    let state = State { schema: STATE_SCHEMA.to_owned(), owner, words, ended };
    let json = serde_json::to_vec_pretty(&state)
        .map_err(|error| Error::internal("the demo's state cannot be written").with_source(error))?;
    durable::write(&folder.join(STATE), &json, durable::SHARED)
}

/// Ends processes and removes folders of earlier runs below `base` whose own process is dead. Gives the folders.
///
/// A process is killed only when it runs in the run's folder and its command line is one that the run starts.
///
/// # Errors
/// A folder can't be read or removed.
pub fn clean_up(base: &Path) -> Result<Vec<PathBuf>> {
    // Processes are known by the real place in which they run.
    let base = std::fs::canonicalize(base).map_err(|error| Error::io(base.display(), error))?;
    let entries = std::fs::read_dir(&base).map_err(|error| Error::io(base.display(), error))?;
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(base.display(), error))?;
        let folder = entry.path();
        let is_run = entry.file_name().to_str().is_some_and(|name| name.starts_with(RUN));
        if !is_run || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Some(state) = read_state(&folder) else {
            // Killed before it wrote its state: then there is nothing in it but perhaps the state's temporary file.
            remove_beginning(&folder, &mut removed);
            continue;
        };
        if state.owner.runs() && !state.ended {
            continue;
        }
        end_processes(&folder, &state)?;
        remove(&folder).with_context(|| format!("remove an earlier run, `{}`", folder.display()))?;
        removed.push(folder);
    }
    Ok(removed)
}

/// Looks until none is left: a supervisor may start a service while we look, and what was killed takes a moment to end,
/// in which it still writes.
fn end_processes(folder: &Path, state: &State) -> Result<()> {
    let mut last = None;
    let gone = Interrupt::default().wait_for(KILL_LIMIT, || {
        last = None;
        for words in &state.words {
            for process in processes_in(folder, words) {
                kill_if(&process, words.first().map_or("", String::as_str));
                last = Some(process.pid);
            }
        }
        Ok(last.is_none().then_some(()))
    })?;
    match (gone, last) {
        (None, Some(pid)) => Err(still_there(pid)),
        _ => Ok(()),
    }
}

fn read_state(folder: &Path) -> Option<State> {
    let bytes = std::fs::read(folder.join(STATE)).ok()?;
    serde_json::from_slice(&bytes).ok().filter(|state: &State| state.schema == STATE_SCHEMA)
}

fn remove_beginning(folder: &Path, removed: &mut Vec<PathBuf>) {
    let owner = folder.to_str().and_then(|name| name.rsplit_once('-')?.1.parse::<u32>().ok());
    if owner.is_some_and(|pid| Identity::of(pid).is_some()) {
        return;
    }
    std::fs::remove_file(durable::temporary(&folder.join(STATE))).ok();
    if std::fs::remove_dir(folder).is_ok() {
        removed.push(folder.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_folder(base: &Path, name: &str, state: Option<&State>) -> PathBuf {
        let folder = base.join(name);
        std::fs::create_dir(&folder).unwrap();
        if let Some(state) = state {
            std::fs::write(folder.join(STATE), serde_json::to_vec(state).unwrap()).unwrap();
            std::fs::write(folder.join("data"), "d").unwrap();
        }
        folder
    }

    #[test]
    fn only_what_a_dead_or_finished_run_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let own = Identity::own().unwrap();
        // The same number with another beginning: that process is dead.
        let dead = Identity { started_ticks: own.started_ticks + 1, ..own };
        let state = |schema: &str, owner, ended| State {
            schema: schema.to_owned(),
            owner,
            words: vec![vec!["no-such-program".to_owned()]],
            ended,
        };
        let goes = [
            run_folder(&base, "run-dead", Some(&state(STATE_SCHEMA, dead, false))),
            run_folder(&base, "run-dead-and-ended", Some(&state(STATE_SCHEMA, dead, true))),
            run_folder(&base, "run-ended", Some(&state(STATE_SCHEMA, own, true))),
            run_folder(&base, "run-x-4294967295", None),
        ];
        std::fs::write(durable::temporary(&goes[3].join(STATE)), "{").unwrap();
        let stays = [
            run_folder(&base, "run-alive", Some(&state(STATE_SCHEMA, own, false))),
            run_folder(&base, "run-later", Some(&state("retoma.demo-state/2", dead, true))),
            run_folder(&base, "other", Some(&state(STATE_SCHEMA, dead, true))),
            run_folder(&base, &format!("run-x-{}", own.pid), None),
            run_folder(&base, "run-y-4294967295", None),
        ];
        std::fs::write(stays[4].join("somebody's"), "s").unwrap();
        std::os::unix::fs::symlink(&stays[2], base.join("run-link")).unwrap();
        std::fs::write(base.join("run-file"), "f").unwrap();
        let mut removed = clean_up(&base).unwrap();
        removed.sort();
        let mut expected = goes.to_vec();
        expected.sort();
        assert_eq!(removed, expected);
        assert!(goes.iter().all(|path| !path.exists()));
        assert!(stays.iter().all(|path| path.exists()) && stays[2].join("data").exists());
        assert!(base.join("run-link").exists() && base.join("run-file").exists());
        assert_eq!(clean_up(&base).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_demos_folder_is_private_and_never_somebody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("a/b");
        make_folder(&base).unwrap();
        assert_eq!(base.metadata().unwrap().mode() & 0o777, 0o700);
        make_folder(&base).unwrap();
        std::os::unix::fs::symlink(&base, folder.path().join("link")).unwrap();
        let refused = make_folder(&folder.path().join("link")).map_err(|error| error.code());
        assert_eq!(refused, Err(codes::USAGE), "somebody may have made the link");
        std::fs::write(folder.path().join("file"), "").unwrap();
        make_folder(&folder.path().join("file")).unwrap_err();
    }
}
