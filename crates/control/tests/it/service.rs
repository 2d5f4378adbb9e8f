//! Services: started, asked, stopped, and never left behind.

use super::sample::{Sample, program, supervisor};
use retoma_control::check::of_service;
use retoma_control::service::{Identity, Start, supervise};
use retoma_control::{Interrupt, Service};
use retoma_core::error::codes;
use retoma_core::manifest::Command;
use retoma_testkit::{PATIENCE, wait_for};
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

fn start(sample: &Sample) -> Service {
    let command = sample.manifest.service.start.as_ref().unwrap();
    let log = sample.path("log");
    let start = Start { command, dir: sample.manifest.dir(), log: &log, variables: &[] };
    let mut service = Service::start(&supervisor(), &start).unwrap();
    service.wait_ready(&of_service(&sample.manifest.service), PATIENCE, &Interrupt::default()).unwrap();
    service
}

fn shell(sample: &Sample, script: &str) -> retoma_control::Result<Service> {
    let command = Command { program: "sh".to_owned(), arguments: vec!["-c".to_owned(), script.to_owned()] };
    let log = sample.path("log");
    Service::start(
        &supervisor(),
        &Start { command: &command, dir: sample.folder.path(), log: &log, variables: &[] },
    )
}

#[test]
fn a_service_is_stopped_killed_or_dropped_and_gone() {
    let sample = Sample::new();
    assert_eq!(start(&sample).stop(PATIENCE).unwrap(), 0, "it ended by itself after SIGTERM");
    assert_eq!(sample.processes(), 0);
    start(&sample).kill().unwrap();
    assert_eq!(sample.processes(), 0);
    drop(start(&sample));
    assert_eq!(sample.processes(), 0);
}

#[test]
fn a_service_that_ignores_sigterm_is_killed() {
    let sample = Sample::new();
    let service =
        shell(&sample, "trap '' TERM; echo ready; while :; do read line; done < /dev/zero").unwrap();
    wait_for(|| std::fs::read_to_string(sample.path("log")).unwrap().contains("ready").then_some(()));
    let process = Identity::of(service.pid()).unwrap();
    assert_eq!(service.stop(Duration::from_millis(50)).unwrap(), 128 + 9);
    assert!(!process.runs());
}

#[test]
fn what_the_service_started_in_another_session_goes_with_it() {
    let sample = Sample::new();
    let pid_file = sample.path("pid");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}.tmp; mv {0}.tmp {0}; exec sleep 600' & wait",
        pid_file.display()
    );
    let service = shell(&sample, &script).unwrap();
    let pid = wait_for(|| std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
    let process = Identity::of(pid).unwrap();
    drop(service);
    assert!(!process.runs());
}

#[test]
fn a_service_ends_when_we_are_killed() {
    // A process in between stands for us: it starts the supervisor with a pipe and is then killed without warning.
    let sample = Sample::new();
    let (pid_file, program) = (sample.path("pid"), program());
    let inner = format!("echo $$ > {0}.tmp; mv {0}.tmp {0}; exec sleep 600", pid_file.display());
    let mut ours = std::process::Command::new("sh")
        .args(["-c", "sleep 600 | \"$@\" > /dev/null 2>&1 & echo $! ; wait", "sh"])
        .arg(program)
        .args(["--exact", "helper::supervisor", "--nocapture", "--", "sh", "-c", &inner])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = wait_for(|| std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
    let process = Identity::of(pid).unwrap();
    // The writing end of the pipe is held by `sleep`, a child of the shell: kill both.
    let shell_pid = ours.id();
    for child in children(shell_pid).into_iter().chain([shell_pid]) {
        let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        if line.starts_with(b"sleep") || child == shell_pid {
            kill(child);
        }
    }
    ours.wait().unwrap();
    wait_for(|| (!process.runs()).then_some(()));
}

fn children(of: u32) -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parent == Some(of)
    })
    .collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_service_that_cannot_start_or_ends_at_once_says_so() {
    let sample = Sample::new();
    let command = Command { program: "/nowhere/to/be/found".to_owned(), arguments: Vec::new() };
    let log = sample.path("log");
    let start = Start { command: &command, dir: sample.folder.path(), log: &log, variables: &[] };
    assert_eq!(Service::start(&supervisor(), &start).unwrap_err().code(), codes::SERVICE_NOT_STARTED);
    let mut service = shell(&sample, "echo the reason; exit 3").unwrap();
    let checks = of_service(&sample.manifest.service);
    let error = service.wait_ready(&checks, PATIENCE, &Interrupt::default()).unwrap_err();
    assert_eq!(error.code(), codes::SERVICE_NOT_READY);
    assert_eq!(error.message(), "the service ended with status 3");
    assert!(error.hint().unwrap().contains("the reason"), "{:?}", error.hint());
    assert_eq!(supervise(&Vec::<OsString>::new()).unwrap_err().code(), codes::USAGE);
}

#[test]
fn a_service_that_was_let_go_runs_on() {
    let sample = Sample::new();
    let service = shell(&sample, "exec sleep 600").unwrap();
    let process = Identity::of(service.pid()).unwrap();
    service.release().unwrap();
    assert!(process.runs());
    retoma_control::service::kill_group(process.pid);
    wait_for(|| (!process.runs()).then_some(()));
}

#[test]
fn a_service_whose_supervisor_was_killed_is_ended_by_us() {
    let sample = Sample::new();
    let service = shell(&sample, "exec sleep 600").unwrap();
    let process = Identity::of(service.pid()).unwrap();
    kill(service.supervisor_pid());
    drop(service);
    wait_for(|| (!process.runs()).then_some(()));
}

fn pid_in(file: &std::path::Path) -> Identity {
    let pid = wait_for(|| std::fs::read_to_string(file).ok()?.trim().parse().ok());
    Identity::of(pid).unwrap()
}

#[test]
fn a_command_that_starts_something_and_ends_well_runs_as_long_as_that_does() {
    let sample = Sample::new();
    let pid_file = sample.path("pid");
    let script = format!("sleep 600 & echo $! > {0}.tmp; mv {0}.tmp {0}; exit 0", pid_file.display());
    let mut service = shell(&sample, &script).unwrap();
    let daemon = pid_in(&pid_file);
    wait_for(|| Identity::of(service.pid()).is_none().then_some(()));
    assert_eq!(service.ended().unwrap(), None);
    assert!(daemon.runs());
    service.wait_ready(&[], PATIENCE, &Interrupt::default()).unwrap();
    kill(daemon.pid);
    assert_eq!(wait_for(|| service.ended().unwrap()), 0);
}

#[test]
fn what_a_command_leaves_that_fails_is_killed() {
    let sample = Sample::new();
    let pid_file = sample.path("pid");
    let script = format!("setsid sleep 600 & echo $! > {0}.tmp; mv {0}.tmp {0}; exit 7", pid_file.display());
    let mut service = shell(&sample, &script).unwrap();
    assert_eq!(wait_for(|| service.ended().unwrap()), 7);
    let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert_eq!(Identity::of(pid), None);
}

#[test]
fn a_service_that_a_signal_ends_has_its_number_in_the_status() {
    let sample = Sample::new();
    let mut service = shell(&sample, "kill -15 $$").unwrap();
    assert_eq!(wait_for(|| service.ended().unwrap()), 128 + 15);
}

#[test]
fn a_service_that_is_not_ready_in_time_tells_the_last_answer_and_a_stop_ends_the_wait() {
    let sample = Sample::new();
    let mut service = shell(&sample, "echo waiting for nothing; exec sleep 600").unwrap();
    wait_for(|| std::fs::read_to_string(sample.path("log")).unwrap().contains("nothing").then_some(()));
    let checks = of_service(&sample.manifest.service);
    let error = service.wait_ready(&checks, Duration::ZERO, &Interrupt::default()).unwrap_err();
    assert_eq!(error.code(), codes::SERVICE_NOT_READY);
    assert!(error.message().contains("/healthz`: ") && error.hint().unwrap().contains("waiting for nothing"));
    let interrupt = Interrupt::default();
    interrupt.set();
    assert_eq!(service.wait_ready(&checks, PATIENCE, &interrupt).unwrap_err().code(), codes::CANCELLED);
}
