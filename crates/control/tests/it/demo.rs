//! The demo: green, inside its folder, and cleaned up after whatever ended it.

use super::sample::{program, supervisor};
use retoma_control::demo::{self, Demo, Shown, clean_up};
use retoma_control::drill::Scenario;
use retoma_control::service::processes_in;
use retoma_control::{Interrupt, Result, Silent};
use retoma_core::drill::{DrillReport, VerdictKind};
use retoma_core::error::codes;
use retoma_core::manifest::Command;
use retoma_core::render::Language;
use retoma_marabet::{SeedOptions, seed};
use retoma_testkit::wait_for;
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn start() -> Command {
    let words =
        ["--exact", "helper::marabet", "--nocapture", "--", "serve", "--root", ".", "--port", "{port}"];
    Command { program: program().display().to_string(), arguments: words.map(str::to_owned).to_vec() }
}

pub(crate) fn run(base: &Path, interrupt: &Interrupt) -> Result<Shown> {
    let seed = |root: &Path| {
        let options = SeedOptions { rows: 300, model_bytes: 20_000, log_bytes: 5_000, seed: 1 };
        seed(root, &options, &|_| ()).map(drop)
    };
    demo::run(&Demo {
        base,
        scenario: Scenario::ApplicationFailure,
        start: &start(),
        seed: &seed,
        supervisor: &supervisor(),
        tool_version: "0.0.0",
        language: Language::English,
        marks: 3,
        watch: &Silent,
        interrupt,
    })
}

fn runs(base: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(base).map(|it| it.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// Services and supervisors in a folder.
fn processes(folder: &Path) -> usize {
    processes_in(folder, &[program().display().to_string()]).len()
}

#[test]
fn a_demo_is_green_and_the_next_one_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("a demo, 100%25");
    let shown = run(&base, &Interrupt::default()).unwrap();
    assert_eq!(shown.manifest.repositories[0].folder(), Some(shown.folder.join("repository").as_path()));
    assert_eq!(shown.report.verdict, VerdictKind::Green, "{:#?}", shown.report.reasons);
    let json = std::fs::read_to_string(&shown.json).unwrap();
    assert_eq!(DrillReport::from_json(&json).unwrap(), shown.report);
    assert!(std::fs::read_to_string(&shown.page).unwrap().starts_with("<!doctype html>"));
    assert!(shown.manifest.evidence.public_key.is_some() && shown.manifest_path.exists());
    assert_eq!(processes(folder.path()), 0);
    assert_eq!(clean_up(&base).unwrap(), [shown.folder]);
    assert_eq!(runs(&base), Vec::<PathBuf>::new());
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("demo");
    let interrupt = Interrupt::default();
    let error = std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&base, &interrupt));
        wait_for(|| (processes(folder.path()) > 1).then_some(()));
        interrupt.set();
        running.join().unwrap().unwrap_err()
    });
    assert_eq!(error.code(), codes::CANCELLED, "{error}");
    assert_eq!(processes(folder.path()), 0);
    assert_eq!(runs(&base), Vec::<PathBuf>::new());
}

#[test]
fn after_a_kill_nothing_runs_on_and_the_next_run_removes_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("demo");
    let mut demo = std::process::Command::new(program())
        .args(["--exact", "helper::demo", "--nocapture", "--"])
        .arg(&base)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| (processes(folder.path()) > 1).then_some(()));
    let other = clean_up(&base).unwrap();
    assert_eq!(other, Vec::<PathBuf>::new(), "a run whose process is alive is left alone");
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_for(|| (processes(folder.path()) == 0).then_some(()));
    assert_eq!(runs(&base).len(), 1);
    assert_eq!(clean_up(&base).unwrap().len(), 1);
    assert_eq!(runs(&base), Vec::<PathBuf>::new());
}
