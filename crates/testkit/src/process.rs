//! Processes of a server: found below its first one, ended by their ids.

pub(crate) use rustix::process::Signal;

use crate::wait_for_what;
use rustix::process::Pid;
use std::fs;
use std::process::Child;

/// Sends a signal; a process that is gone already needs none.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _was_there = pid.is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok());
}

/// Kills a process with all that it started, and waits until they are gone.
pub(crate) fn kill_family(mut child: Child) {
    let root = child.id();
    // A stopped parent starts nobody new while we look.
    signal(root, Signal::STOP);
    let family = family(root);
    for pid in &family {
        signal(*pid, Signal::KILL);
    }
    let _was_running = child.wait().is_ok();
    wait_for_what("killed processes to go", || family.iter().all(|pid| is_gone(*pid)).then_some(()));
}

/// A process and its descendants.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut family = vec![root];
    let processes: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?.1))
        })
        .collect();
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        family.extend(processes.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

/// Whether a process has ended; one that nobody has waited for yet counts as ended.
pub(crate) fn is_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| state == 'Z' || state == 'X')
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
