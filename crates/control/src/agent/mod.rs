//! The agent: one loop that runs what is due as children of its own, watches what must not stop, and says what is wrong.
//! `docs/agent.md` describes it.
//!
//! ```text
//! look (repositories) ─┐                      ┌─▶ children ─▶ report ─▶ journal
//! streams (WAL, slots) ┴─▶ loop: decide, act ─┤
//!                                             └─▶ board ─▶ HTTP, alerts
//! ```
//! Invariants: what is decided comes from [`retoma_core::decide`]; one agent for each state folder; no two runs of a task at once, also not
//! of an agent that was killed and its successor; every wait ends when an [`Interrupt`] says so; the loop itself waits for nothing but
//! time.

mod board;
mod child;
mod journal;
mod look;
mod marks;
mod notify;
mod report;
mod send;
mod state;
mod streams;
mod task;
mod view;

pub use board::{Board, DECIDES_EVERY};
pub use notify::{Notify, watchdog};
pub use state::{State, TaskLock, begin_task};
pub use streams::Tell;

use crate::drill::Scenario;
use crate::{Interrupt, durable};
use child::{Launch, Running};
use jiff::Timestamp;
use journal::{Event, Journal, Line, Outcome};
use look::Looker;
use report::Report;
use retoma_core::decide::alerts::{Alerts, conditions};
use retoma_core::decide::gaps::Open;
use retoma_core::decide::schedule::{self, Ended, Known, Places};
use retoma_core::manifest::Manifest;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streams::Wal;
use task::Task;

/// From one look at everything to the next.
const TICK: Duration = Duration::from_millis(250);
/// How often the board is written anew.
const POST: Duration = Duration::from_secs(1);
/// What may run at once.
const PLACES: Places = Places { backups: 2, copies: 1, maintenance: 1 };
/// How long children may take to stop, and streams to store what has come.
const CHILD_PATIENCE: Duration = Duration::from_secs(20);
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

/// Where the addresses are kept at which a repository was seen.
const SEEN: &str = "repositories.json";

/// What an agent works with.
pub struct Settings {
    /// What is to be done.
    pub manifest: Arc<Manifest>,
    /// The manifest's file, absolute: children read it.
    pub manifest_path: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Its version.
    pub version: String,
    /// The name of this host.
    pub host: String,
    /// Ends the agent.
    pub interrupt: Interrupt,
    /// Tells a person something, from any thread.
    pub tell: Tell,
    /// Tells systemd, and how often that we are alive.
    pub notify: Notify,
    /// How often.
    pub watchdog: Option<Duration>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("manifest_path", &self.manifest_path).finish_non_exhaustive()
    }
}

/// A run under way.
#[derive(Debug)]
struct Run {
    line: Line,
    began: Instant,
    /// The step that runs, by its place in the task's list.
    step: usize,
    child: Option<Running>,
    report: Report,
}

/// The state of the loop.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    state: State,
    journal: Journal,
    launch: Launch,
    tasks: Vec<Task>,
    known: Vec<Known>,
    runs: Vec<Option<Run>>,
    lookers: Vec<Looker>,
    wal: Vec<Wal>,
    alerts: Alerts,
    board: Arc<Board>,
    started: Timestamp,
    since: Timestamp,
    spool_bytes: u64,
    /// For each server, the tablespaces that its newest snapshot does not have.
    new_tablespaces: BTreeMap<String, Open<u32>>,
    /// Addresses at which a repository was seen: nothing is made there anew.
    seen: BTreeSet<String>,
    told_journal: bool,
}

impl Agent {
    /// Takes the state folder and reads the journal; nothing is run yet.
    ///
    /// # Errors
    /// `R0950` when another agent has the folder; `R0951` when it cannot be used; `R0002` for a drill that there is not.
    pub fn new(settings: Settings, state: State) -> Result<Self> {
        if let Some(name) = &settings.manifest.agent.drill
            && Scenario::from_name(name).is_none()
        {
            let known: Vec<&str> = Scenario::ALL.iter().map(|it| it.as_str()).collect();
            let message = format!("`drill` in `[agent]` is `{name}`, and there is no such scenario");
            return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
                .with_hint(format!("the scenarios are {}", known.join(", "))));
        }
        let started = Timestamp::now();
        let journal = Journal::open(state.folder(), started)?;
        let since = journal.since().unwrap_or(started);
        let tasks = task::tasks(&settings.manifest, &settings.host);
        let known = tasks.iter().map(|task| remembered(&journal, task, since)).collect();
        let seen = std::fs::read(state.folder().join(SEEN)).ok();
        let seen = seen.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let launch = Launch { program: settings.program.clone(), manifest: settings.manifest_path.clone() };
        Ok(Self {
            runs: tasks.iter().map(|_| None).collect(),
            tasks,
            known,
            state,
            journal,
            launch,
            lookers: Vec::new(),
            wal: Vec::new(),
            alerts: Alerts::default(),
            board: Arc::default(),
            started,
            since,
            spool_bytes: 0,
            new_tablespaces: BTreeMap::new(),
            seen,
            told_journal: false,
            settings,
        })
    }

    /// What others may see.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Runs until it is interrupted. The thread that calls this must live as long as the process: children die with it.
    ///
    /// # Errors
    /// The system has no threads.
    pub fn run(mut self) -> Result<()> {
        let Settings { manifest, interrupt, tell, .. } = &self.settings;
        for repository in &manifest.repositories {
            self.lookers.push(Looker::start(repository.clone(), interrupt.clone())?);
        }
        self.wal = Wal::start_all(manifest, interrupt, tell)?;
        let sender = send::Sender {
            options: manifest.alerts.clone(),
            service: manifest.service.name.clone(),
            host: self.settings.host.clone(),
            folder: self.state.folder().to_owned(),
        };
        sender.start(Arc::clone(&self.board), interrupt.clone(), Arc::clone(tell))?;
        // Where there is a repository, what is due depends on what lies in it.
        pause(&self.settings.interrupt, Duration::from_secs(10), || {
            self.lookers.iter().all(|looker| looker.last().looked.is_some())
        });
        self.settings.notify.say("READY=1");
        let (mut posted, mut fed) = (None::<Instant>, Instant::now());
        while !self.settings.interrupt.is_set() {
            self.look_at_runs(false);
            self.start_what_is_due();
            if posted.is_none_or(|posted| posted.elapsed() >= POST) {
                posted = Some(Instant::now());
                self.post();
            }
            if self.settings.watchdog.is_some_and(|every| fed.elapsed() >= every) {
                fed = Instant::now();
                self.settings.notify.say("WATCHDOG=1");
            }
            std::thread::sleep(TICK);
        }
        self.settings.notify.say("STOPPING=1");
        self.stop();
        Ok(())
    }

    fn start_what_is_due(&mut self) {
        let now = Timestamp::now();
        self.look_at_tablespaces(now);
        let looks: Vec<_> = self.lookers.iter().map(|looker| (looker.name.clone(), looker.last())).collect();
        for (task, known) in self.tasks.iter().zip(&mut self.known) {
            let component = task.component.as_deref().and_then(|name| self.settings.manifest.component(name));
            if let Some(seen) = component.and_then(|component| view::newest_everywhere(component, &looks)) {
                known.saw_good(seen, now);
            }
            // Behind a gap nothing can be recovered, however soon the next backup was due.
            let wal = self.wal.iter().map(Wal::known);
            let own = wal
                .filter(|it| task.verb == "backup" && Some(&it.stream.component) == task.component.as_ref());
            let made = |name: &str| self.new_tablespaces.get(name);
            let since = |it: streams::Known| view::gap_since(&self.journal, &it, made(&it.stream.component));
            known.needed_since = own.filter_map(since).max();
        }
        let schedules: Vec<schedule::Task> = self.tasks.iter().map(|task| task.schedule.clone()).collect();
        for number in schedule::plan(&schedules, &self.known, PLACES, now).start {
            self.begin(number, now);
        }
    }

    fn begin(&mut self, number: usize, now: Timestamp) {
        let Some(task) = self.tasks.get(number) else { return };
        let line = Line {
            event: Event::Begun,
            id: self.journal.next_id(),
            task: task.name.clone(),
            verb: task.verb.to_owned(),
            component: task.component.clone(),
            started: now,
            ended: None,
            duration_seconds: None,
            outcome: None,
            exit_code: None,
            error_code: None,
            snapshot: None,
            total_bytes: None,
            stored_bytes: None,
            details: Value::Null,
        };
        self.journal.write(line.clone());
        self.known[number].begin();
        let run = Run { line, began: Instant::now(), step: 0, child: None, report: Report::default() };
        self.runs[number] = Some(run);
        self.step(number);
    }

    /// Starts the step that is next; without one, the run has ended.
    fn step(&mut self, number: usize) {
        let (Some(task), Some(Some(run))) = (self.tasks.get(number), self.runs.get_mut(number)) else {
            return;
        };
        while let Some(arguments) = task.steps.get(run.step) {
            let mut arguments = arguments.clone();
            // A repository that was there and is not must not be made anew where its disk was.
            let seen = self.settings.manifest.repositories.iter().filter(|it| self.seen.contains(&it.url));
            for repository in seen.filter(|_| matches!(task.verb, "backup" | "copy")) {
                arguments.extend(["--existing".to_owned(), repository.name.clone()]);
            }
            match self.launch.start(&arguments, &self.state.task_lock(&task.name), task.limit) {
                Ok(child) => {
                    run.child = Some(child);
                    return;
                }
                Err(error) => {
                    (self.settings.tell)(&format!("{}: {error} [{}]", task.name, error.code()));
                    run.report.not_started(error.code().as_str());
                    run.step += 1;
                }
            }
        }
        self.end(number);
    }

    fn end(&mut self, number: usize) {
        let (Some(task), Some(run)) =
            (self.tasks.get(number), self.runs.get_mut(number).and_then(Option::take))
        else {
            return;
        };
        let now = Timestamp::now();
        let outcome = run.report.outcome();
        let line = Line {
            event: Event::Ended,
            ended: Some(now),
            duration_seconds: Some(run.began.elapsed().as_secs_f64()),
            ..run.line
        };
        let started = line.started;
        let mut line = run.report.into_line(line);
        let before = self.journal.past(&task.name).and_then(|past| past.good.as_ref());
        match task.verb {
            "wal-check" => view::note_open(before, started, &mut line.details),
            "drill" => view::note_green(before, started, &mut line.details),
            _ => {}
        }
        if outcome != Outcome::Good {
            let code = line.error_code.as_deref().unwrap_or("no code");
            (self.settings.tell)(&format!("{} ended {outcome:?} ({code})", task.name).to_lowercase());
        }
        self.journal.write(line);
        if self.journal.errors > 0 && !self.told_journal {
            self.told_journal = true;
            let folder = self.state.folder().display();
            (self.settings.tell)(&format!("the journal in {folder} cannot be written; going on without"));
        }
        let how = match outcome {
            Outcome::Good => Ended::Good,
            Outcome::Stopped => Ended::Stopped,
            _ => Ended::Failed,
        };
        self.known[number].end(started, now, how);
        self.lookers.iter().for_each(Looker::again);
    }

    /// Takes in what has ended.
    fn look_at_runs(&mut self, is_stopping: bool) {
        for number in 0..self.runs.len() {
            let (Some(task), Some(Some(run))) = (self.tasks.get(number), self.runs.get_mut(number)) else {
                continue;
            };
            let Some(ended) = run.child.as_mut().and_then(Running::poll) else { continue };
            run.child = None;
            run.report.add(task.verb, &ended, is_stopping);
            run.step += 1;
            if is_stopping {
                self.end(number);
            } else {
                self.step(number);
            }
        }
    }

    fn post(&mut self) {
        self.remember_repositories();
        self.spool_bytes = view::spool_bytes(self.settings.manifest.dir());
        let now = Timestamp::now();
        let observed = self.observed(now);
        self.alerts.observe(conditions(&observed, now), now);
        self.board.post(observed, self.alerts.clone());
    }

    fn remember_repositories(&mut self) {
        let before = self.seen.len();
        let there = self.lookers.iter().filter(|looker| looker.last().was_there);
        let urls =
            there.filter_map(|looker| Some(self.settings.manifest.repository(&looker.name)?.url.clone()));
        self.seen.extend(urls);
        if self.seen.len() > before {
            let text = serde_json::to_vec(&self.seen).unwrap_or_default();
            // What cannot be written is known at least to this agent.
            durable::write(&self.state.folder().join(SEEN), &text, durable::PRIVATE).ok();
        }
    }

    /// Nothing new begins; what runs is asked to stop, and killed when it does not.
    fn stop(&mut self) {
        let signal = |runs: &[Option<Run>], signal| {
            runs.iter().flatten().filter_map(|run| run.child.as_ref()).for_each(|child| child.signal(signal));
        };
        signal(&self.runs, Signal::TERM);
        let deadline = Instant::now() + CHILD_PATIENCE;
        let mut is_killed = false;
        while self.runs.iter().any(Option::is_some) {
            self.look_at_runs(true);
            if !is_killed && Instant::now() >= deadline {
                is_killed = true;
                signal(&self.runs, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let deadline = Instant::now() + STREAM_PATIENCE;
        while !self.wal.iter().all(Wal::has_ended) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What the journal says of a task.
fn remembered(journal: &Journal, task: &Task, since: Timestamp) -> Known {
    let mut known = Known::new(since);
    if let Some(past) = journal.past(&task.name) {
        known.last_good = past.good.as_ref().map(|line| line.started);
        known.failures = past.failures;
        known.failed_at = past.last.as_ref().filter(|_| past.failures > 0).and_then(|line| line.ended);
    }
    known
}

/// Waits without using the processor; ends early when it is to stop, or when `is_enough` says so.
fn pause(interrupt: &Interrupt, time: Duration, mut is_enough: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !interrupt.is_set() && !is_enough() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(TICK));
    }
}

#[cfg(test)]
mod tests;
