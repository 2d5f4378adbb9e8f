//! Processes of this machine: who they are, what they started, and how they are ended.
//!
//! A process is never known by its number alone, which the system gives to the next one after a while: its start time
//! and a part of its command line must fit too.

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A process, told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub started_ticks: u64,
}

impl Identity {
    /// Of a process that runs; `None` when there is none.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (stat.state != b'Z').then_some(Self { pid, started_ticks: stat.started_ticks })
    }

    /// Of this process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether this very process still runs.
    pub fn runs(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

/// What `/proc/PID/stat` tells.
struct Stat {
    state: u8,
    parent: u32,
    started_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        // The name in parentheses may hold anything, also parentheses.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            started_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

fn pids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Every process that `ancestor` started, directly or not.
fn descendants(ancestor: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> =
        pids().into_iter().filter_map(|pid| Some((pid, Stat::read(pid)?.parent))).collect();
    let mut found = vec![ancestor];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// Sends `signal` to a group; one that is gone is fine.
pub(super) fn signal_group(group: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(group).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) {
        rustix::process::kill_process_group(pid, signal).ok();
    }
}

/// Kills the group and everything that this process started.
pub(super) fn kill_all(group: u32) {
    signal_group(group, Signal::KILL);
    for pid in descendants(std::process::id()) {
        kill(pid);
    }
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) {
        rustix::process::kill_process(pid, Signal::KILL).ok();
    }
}

/// Kills the group that `leader` leads.
pub fn kill_group(leader: u32) {
    signal_group(leader, Signal::KILL);
}

/// Processes other than this one whose command line has `text` in it.
pub fn processes_with(text: &str) -> Vec<Identity> {
    let fits = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    let others = pids().into_iter().filter(|pid| *pid != std::process::id());
    others.filter(fits).filter_map(Identity::of).collect()
}

/// Processes other than this one that run in `folder` or below it and have all of `words` as arguments.
pub fn processes_in(folder: &Path, words: &[String]) -> Vec<Identity> {
    let fits = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let is_ours = words.iter().all(|word| arguments.contains(&word.as_bytes()));
        let place = std::fs::read_link(format!("/proc/{pid}/cwd"));
        is_ours && !words.is_empty() && place.is_ok_and(|place| place.starts_with(folder))
    };
    let others = pids().into_iter().filter(|pid| *pid != std::process::id());
    others.filter(fits).filter_map(Identity::of).collect()
}

/// Kills `process` if it still is who it was and its command line has `text` in it; whether it did.
pub fn kill_if(process: &Identity, text: &str) -> bool {
    let is_it = process.runs() && processes_with(text).contains(process);
    if is_it {
        kill(process.pid);
    }
    is_it
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let own = Identity::own().unwrap();
        assert!(own.runs());
        assert!(!Identity { started_ticks: own.started_ticks + 1, ..own }.runs());
        assert_eq!(Identity::of(u32::MAX), None);
    }

    #[test]
    fn only_a_process_that_fits_in_all_is_killed() {
        // The shell reads its stdin, a pipe that stays open: it ends only when it is killed.
        let script = "read line # retoma-test-7e1f";
        let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let child_is = || Identity::of(child.id());
        // Right after the fork its command line is still ours.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let process = loop {
            match child_is().filter(|process| processes_with("retoma-test-7e1f").contains(process)) {
                Some(process) => break process,
                None => assert!(std::time::Instant::now() < deadline),
            }
        };
        assert!(descendants(std::process::id()).contains(&process.pid));
        assert!(!kill_if(&process, "another text"));
        assert!(!kill_if(&Identity { started_ticks: 1, ..process }, "retoma-test-7e1f"));
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(kill_if(&process, "retoma-test-7e1f"));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn processes_are_found_by_their_folder_and_all_of_their_words() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().canonicalize().unwrap().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let script = "echo up; read line # retoma-test-55c0";
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&inside).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It has begun, so its command line is its own.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 2]).unwrap();
        let found = |folder: &Path, all: &[&str]| {
            let found = processes_in(folder, &words(all));
            found.iter().map(|process| process.pid).collect::<Vec<_>>()
        };
        let none: [u32; 0] = [];
        let above = inside.parent().unwrap();
        assert_eq!(found(&inside, &["sh", "-c"]), [child.id()]);
        assert_eq!(found(above, &[script]), [child.id()], "in the folder or below it");
        assert_eq!(found(&inside, &["sh", "-x"]), none, "one word is not all words");
        assert_eq!(found(&inside, &["retoma-test-55c0"]), none, "a part of a word is no word");
        assert_eq!(found(&inside, &[]), none, "no words fit nothing");
        assert_eq!(found(&above.join("insid"), &["sh"]), none, "a folder, not the beginning of a name");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found(&inside, &["sh", "-c"]), none);
    }
}
