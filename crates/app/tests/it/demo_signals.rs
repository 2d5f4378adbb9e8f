//! The demo, stopped at random points of its whole length: whatever stops it, nothing of it is left outside its own
//! folder, and after SIGKILL the next run cleans up.
//!
//! The real size by hand: `RETOMA_DEMO_POINTS=50 RETOMA_DEMO_ROWS=1000000 cargo test -p retoma --test it demo_signals
//! -- --nocapture`. `RETOMA_DEMO_SEED` repeats a run's points.

use crate::kit::{Home, Run, signal, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// In the environment of everything that a demo of this test starts.
const MARK: &str = "RETOMA_TEST_DEMO";
/// Each signal once.
const POINTS: u64 = 3;
/// The real demo has a million.
const ROWS: u64 = 5_000;
const STOPS: [(Signal, &str, i32); 3] =
    [(Signal::INT, "SIGINT", 2), (Signal::TERM, "SIGTERM", 15), (Signal::HUP, "SIGHUP", 1)];

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Numbers that look random and can be had again (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        limit * ((z >> 32) as u32 % 10_000) / 10_000
    }
}

/// A folder that stands for the machine. The folder for temporary files is reached through a link.
struct Machine {
    home: Home,
    rows: String,
}

impl Machine {
    fn new() -> Self {
        let home = Home::empty();
        std::os::unix::fs::symlink("tmp", home.path("linked")).unwrap();
        Self { home, rows: variable("RETOMA_DEMO_ROWS", ROWS).to_string() }
    }

    fn start(&self) -> Demo<'_> {
        let mut command = self.home.command();
        command.env(MARK, self.home.path("")).env("TMPDIR", self.home.path("linked"));
        command.args(["demo", "--rows", &self.rows]).stdout(Stdio::null()).stderr(Stdio::piped());
        Demo { machine: self, child: command.spawn().unwrap(), sockets: BTreeSet::new() }
    }

    /// Where runs have their folders.
    fn base(&self) -> PathBuf {
        self.home.path(&format!("tmp/retoma-demo-{}", retoma_repo::host::ids().0))
    }

    fn runs(&self) -> BTreeSet<PathBuf> {
        std::fs::read_dir(self.base()).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }

    /// Processes that a demo here started, by their environment or the place where they run; each with its command.
    fn processes(&self) -> BTreeMap<u32, String> {
        let mark = format!("{MARK}={}", self.home.text_path(""));
        let own = std::process::id();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_ours = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let place = std::fs::read_link(format!("/proc/{pid}/cwd"));
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
                || place.is_ok_and(|place| place.starts_with(self.home.path("")))
        };
        let command = |pid: u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&line).replace('\0', " "))
        };
        all.filter(|pid| *pid != own).filter(is_ours).map(command).collect()
    }

    /// What must hold after each end: no process, nothing beside the demo's own folder.
    fn assert_nothing_outside(&self, what: &str) {
        assert_eq!(self.processes(), BTreeMap::new(), "{what}");
        let names = |folder: PathBuf| {
            let entries = std::fs::read_dir(folder).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
        };
        assert_eq!(names(self.home.path("")), ["linked", "tmp"].map(str::to_owned).into(), "{what}");
        let base = self.base().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(names(self.home.path("tmp")).is_subset(&[base].into()), "{what}");
    }
}

/// A test that fails leaves nothing either.
impl Drop for Machine {
    fn drop(&mut self) {
        for pid in self.processes().into_keys().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

/// A demo that runs.
struct Demo<'a> {
    machine: &'a Machine,
    child: Child,
    /// The listening sockets of its processes so far, as numbers that are never given twice.
    sockets: BTreeSet<String>,
}

impl Demo<'_> {
    /// Looks at its sockets for `delay`; whether it still runs then.
    fn runs_for(&mut self, delay: Duration) -> bool {
        let deadline = Instant::now() + delay;
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let processes = self.machine.processes();
            self.sockets.extend(listening().into_iter().filter(|socket| is_held(socket, &processes)));
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// Its end, and that none of its sockets listens any more.
    fn end(mut self, what: &str) -> Run {
        wait_for(&format!("the end after {what}"), || self.child.try_wait().unwrap());
        let output = self.child.wait_with_output().unwrap();
        let left: Vec<_> = self.sockets.intersection(&listening()).cloned().collect();
        assert_eq!(left, Vec::<String>::new(), "{what}: ports are still open");
        Run::new(format!("retoma demo, {what}"), &output)
    }
}

/// The numbers of all listening TCP sockets.
fn listening() -> BTreeSet<String> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|it| std::fs::read_to_string(it).unwrap_or_default());
    let fields = tables.iter().flat_map(|table| table.lines()).map(|line| line.split_whitespace().collect());
    let is_listening = |fields: &Vec<&str>| fields.get(3) == Some(&"0A");
    fields.filter(is_listening).filter_map(|fields| Some((*fields.get(9)?).to_owned())).collect()
}

fn is_held(socket: &str, processes: &BTreeMap<u32, String>) -> bool {
    let name = PathBuf::from(format!("socket:[{socket}]"));
    let holds = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|target| target == name)
    };
    processes.keys().any(holds)
}

fn has_ended(run: &Path) -> bool {
    let state = std::fs::read(run.join("state.json")).unwrap();
    serde_json::from_slice::<serde_json::Value>(&state).unwrap()["ended"] == true
}

/// How long an undisturbed demo takes, and that this test sees its processes and its port.
fn measure(machine: &Machine) -> Duration {
    let started = Instant::now();
    let mut demo = machine.start();
    let mut commands = BTreeSet::new();
    while demo.runs_for(Duration::from_millis(100)) {
        commands.extend(machine.processes().into_values());
        assert!(started.elapsed() < Duration::from_mins(5));
    }
    let length = started.elapsed();
    assert!(!demo.sockets.is_empty(), "the service's port was not seen");
    for word in [" demo ", " __supervise ", " __marabet serve "] {
        assert!(commands.iter().any(|command| command.contains(word)), "{word}: {commands:#?}");
    }
    demo.end("undisturbed").expect(0);
    machine.assert_nothing_outside("undisturbed");
    assert_eq!(machine.runs().len(), 1, "the last finished run stays to be looked at");
    length
}

#[test]
fn a_demo_that_is_stopped_anywhere_leaves_nothing_outside_its_folder() {
    let seed = variable("RETOMA_DEMO_SEED", u64::from(std::process::id()));
    let points = variable("RETOMA_DEMO_POINTS", POINTS);
    let machine = Machine::new();
    let length = measure(&machine);
    println!("seed {seed}, {} rows, an undisturbed demo takes {:.2} s", machine.rows, length.as_secs_f64());
    let mut random = Random(seed);
    let mut ends = BTreeMap::<&str, u64>::new();
    for (point, (stop, name, number)) in (1..=points).zip(STOPS.into_iter().cycle()) {
        // The next demo may be much quicker than the measured one; the first point is inside it all the same.
        let delay = random.below(if point == 1 { length / 4 } else { length });
        let what = format!("point {point}: {name} at {:.3} s", delay.as_secs_f64());
        let mut demo = machine.start();
        if demo.runs_for(delay) {
            signal(&demo.child, stop);
        }
        let sent = Instant::now();
        let status = wait_for(&what, || demo.child.try_wait().unwrap());
        let took = sent.elapsed();
        let run = demo.end(&what);
        let killed_by = std::os::unix::process::ExitStatusExt::signal(&status);
        let end = match (run.code, killed_by) {
            (Some(130), _) => {
                assert!(run.stderr.contains("error[R0003]"), "{}", run.text());
                assert_eq!(machine.runs(), BTreeSet::new(), "{what}");
                "exit 130, its folder removed"
            }
            // Before the program listens for signals nothing is made, and the system ends it. A finished run from
            // before may be there still.
            (None, Some(by)) if by == number => {
                assert!(machine.runs().iter().all(|run| has_ended(run)), "{what}");
                "ended by the system before it began"
            }
            // All was done when the signal came; the run's folder stays to be looked at.
            (Some(0), _) => {
                assert!(
                    machine.runs().len() == 1 && machine.runs().iter().all(|run| has_ended(run)),
                    "{what}"
                );
                "exit 0, was done already"
            }
            _ => panic!("{status:?}: {}", run.text()),
        };
        machine.assert_nothing_outside(&what);
        println!("{what}: {end}, after {:.0} ms", took.as_secs_f64() * 1e3);
        *ends.entry(end).or_default() += 1;
    }
    println!("{points} points: {ends:?}");
    assert!(ends.contains_key("exit 130, its folder removed"), "no point was inside the demo");
}

#[test]
fn after_sigkill_the_next_run_ends_and_removes_what_was_left() {
    let seed = variable("RETOMA_DEMO_SEED", u64::from(std::process::id()));
    // In turns: the demo alone, and the demo with its supervisor, so that nobody is left to end the service.
    let points = variable("RETOMA_DEMO_POINTS", POINTS).div_ceil(3).max(2);
    let machine = Machine::new();
    let length = measure(&machine);
    let mut random = Random(seed);
    let mut survivors = 0;
    for point in 0..points {
        let with_supervisor = point % 2 == 1;
        // Later the service may be gone for good.
        let delay = random.below(if with_supervisor { length / 4 } else { length });
        let mut demo = machine.start();
        let mut what = format!("SIGKILL {}: at {:.3} s", point + 1, delay.as_secs_f64());
        demo.runs_for(delay);
        if with_supervisor {
            what += ", with the supervisor";
            // Only a service that runs can be left behind.
            let supervisors = wait_for("a supervisor with a service", || {
                let processes = machine.processes();
                let is_up =
                    processes.values().any(|it| it.contains(" __marabet ") && !it.contains(" __supervise "));
                let ended = demo.child.try_wait().unwrap().is_some();
                let found: Vec<u32> = processes
                    .into_iter()
                    .filter_map(|(pid, command)| command.contains(" __supervise ").then_some(pid))
                    .collect();
                (ended || is_up && !found.is_empty()).then_some(found)
            });
            for pid in supervisors {
                kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).ok();
            }
        }
        demo.child.kill().unwrap();
        demo.child.wait().unwrap();
        if !with_supervisor {
            wait_for(&format!("the service's end, {what}"), || machine.processes().is_empty().then_some(()));
        }
        let left = machine.processes().len();
        survivors += left;
        let (folders, mut next) = (machine.runs(), machine.start());
        wait_for(&format!("the next run's own folder, {what}"), || {
            assert_eq!(next.child.try_wait().unwrap(), None, "{what}: the next run ended early");
            machine.runs().iter().any(|run| !folders.contains(run)).then_some(())
        });
        assert!(machine.runs().is_disjoint(&folders), "{what}: the next run left what it found");
        let is_old = |pid: &u32| {
            let place = std::fs::read_link(format!("/proc/{pid}/cwd"));
            place.is_ok_and(|place| folders.iter().any(|run| place.starts_with(run)))
        };
        assert!(!machine.processes().keys().any(is_old), "{what}: a process of the dead run lives on");
        signal(&next.child, Signal::TERM);
        next.runs_for(Duration::ZERO);
        next.end(&what).expect(130);
        machine.assert_nothing_outside(&what);
        assert_eq!(machine.runs(), BTreeSet::new(), "{what}");
        println!("{what}: left {left} processes and {} folders; the next run removed them", folders.len());
    }
    assert!(survivors > 0, "nothing was left behind, so nothing was shown");
}
