//! `retoma agent`, as its own process with real children.

mod alerts;
mod copies;
mod drills;
mod kills;
mod life;

use crate::kit::{DATABASE, Home, MODELS, signal};
use retoma_control::service::processes_with;
use retoma_testkit::wait_for_what;
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// Files and a database that are backed up every two seconds, with maintenance as often.
fn home(more: &str) -> Home {
    let home = Home::with("");
    let often = "[schedule]\nevery = \"2s\"\n[agent]\nlisten = \"127.0.0.1:0\"\nretention_every = \"3s\"\nverify_every = \"3s\"\n\
                 verify_sample_percent = 100\n";
    home.write_manifest(&format!("{MODELS}{DATABASE}\n{often}{more}"));
    home.seed_models();
    home.seed_database();
    home
}

/// A running agent. Dropping it kills it.
struct Agent<'a> {
    home: &'a Home,
    child: Option<Child>,
}

impl<'a> Agent<'a> {
    fn start(home: &'a Home) -> Self {
        Self::start_with(home, &[])
    }

    fn start_with(home: &'a Home, environment: &[(&str, &str)]) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(home.path("agent.log")).unwrap();
        let mut command = home.command();
        // Absolute, so that its processes are known by it.
        command.arg("--manifest").arg(home.path("retoma.toml")).arg("agent");
        command.envs(environment.iter().copied()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { home, child: Some(command.spawn().unwrap()) }
    }

    fn kill(mut self) {
        self.kill_now();
    }

    fn kill_now(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; how it ended.
    fn stop(mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        signal(&child, Signal::TERM);
        wait_for_what("the agent to stop", || child.try_wait().unwrap())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path("agent.log")).unwrap()
    }

    /// Asks it over HTTP; head and body.
    fn get(&self, path: &str) -> (String, String) {
        ask(&self.home.path(".retoma/agent/address"), path)
    }
}

/// Asks an agent over HTTP whose address is in this file; head and body.
pub(crate) fn ask(address: &Path, path: &str) -> (String, String) {
    wait_for_what("an answer", || {
        let address = std::fs::read_to_string(address).ok()?;
        let mut stream = TcpStream::connect(address.trim()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.to_owned(), body.to_owned()))
    })
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = std::fs::read_to_string(self.home.path(".retoma/agent/journal.jsonl"));
            println!("{}\n{}", self.log(), journal.unwrap_or_default());
        }
        self.kill_now();
    }
}

/// Every whole line of the journal.
fn journal(home: &Home) -> Vec<Value> {
    let text = std::fs::read_to_string(home.path(".retoma/agent/journal.jsonl")).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// How many runs of a task ended so.
fn ended(home: &Home, task: &str, outcome: &str) -> usize {
    let fits = |line: &&Value| line["event"] == "ended" && line["task"] == task && line["outcome"] == outcome;
    journal(home).iter().filter(fits).count()
}

fn wait_for_good(home: &Home, task: &str, count: usize) {
    wait_for_what(task, || (ended(home, task, "good") >= count).then_some(()));
}

/// Waits until none of the agent's processes is left.
fn wait_for_nobody(home: &Home) {
    let manifest = home.text_path("retoma.toml");
    wait_for_what("all processes to go", || processes_with(&manifest).is_empty().then_some(()));
}
