//! WAL for a server that we recover: from repositories that are open already, through a socket, to its `restore_command`.
//!
//! ```text
//! PostgreSQL ─▶ retoma __wal-get --socket S %f %p ── name ──▶ WalServer ─▶ one repository after the other
//!                        %p ◀── verified bytes, "absent", or "unknown" and why ──┘  └─▶ the next segments, into memory
//! ```
//! So a key is derived once, the database's user needs no password, and what went wrong is known to who recovers: the server
//! only sees an exit code. "Absent" is said only when every repository was asked, and is never remembered.

use super::fetch::{Source, following, in_parallel, look_everywhere};
use super::guard::Guard;
use super::no_wal_file;
use crate::durable;
use retoma_core::postgres::{SegmentName, SegmentSize, WalFileName};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::wal::{self, Archive};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many segments wait in memory at most …
const AHEAD: u64 = 8;
/// … and so many bytes.
const AHEAD_BYTES: u64 = 128 << 20;
/// The longest line that is read from the other side, in bytes.
const LINE_BYTES: u64 = 4096;
/// How long a client may be silent: it has its question ready when it comes.
const CLIENT_LIMIT: Duration = Duration::from_mins(1);
/// How long an answer may take: a store that hangs is tried again for a while.
const ANSWER_LIMIT: Duration = Duration::from_mins(30);
/// How long a thread sleeps at most before it looks whether all is over.
const POLL: Duration = Duration::from_secs(1);

/// Where the WAL for a recovery comes from.
#[derive(Debug, Clone)]
pub struct Supply {
    /// The server's archive in each repository, in the order in which they are asked; open already.
    pub archives: Vec<Archive>,
    /// This program, as an absolute path; the database's user must be able to run it.
    pub program: PathBuf,
}

/// What was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// Segments, whole ones and those made of parts.
    pub segments: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Answers on a socket until it is dropped.
#[derive(Debug)]
pub struct WalServer {
    socket: PathBuf,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    archives: Vec<Archive>,
    is_over: AtomicBool,
    told: Mutex<Told>,
    ahead: Mutex<Ahead>,
    guard: Option<Mutex<Guard>>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    served: Served,
    failure: Option<Error>,
}

/// What was fetched before it was asked for.
#[derive(Debug, Default)]
struct Ahead {
    /// The archive, the segments that will be asked for, and their size.
    job: Option<(Archive, Vec<SegmentName>, SegmentSize)>,
    wanted: BTreeSet<SegmentName>,
    kept: BTreeMap<SegmentName, Vec<u8>>,
    on_their_way: BTreeSet<SegmentName>,
}

/// A thread that panicked leaves nothing half-done in these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WalServer {
    /// Listens on `socket`, in a folder that only the right users can enter. What `guard` refuses is not handed out.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(archives: &[Archive], socket: &Path, guard: Option<Guard>) -> Result<Self> {
        let listener = UnixListener::bind(socket).map_err(|error| Error::io(socket.display(), error))?;
        let state = Arc::new(State {
            archives: archives.to_vec(),
            is_over: AtomicBool::new(false),
            told: Mutex::default(),
            ahead: Mutex::default(),
            guard: guard.map(Mutex::new),
            changed: Condvar::new(),
        });
        let own = Self { socket: socket.to_owned(), state: Arc::clone(&state) };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
            spawned.map(drop).map_err(|error| Error::io("a thread", error))
        };
        let answering = Arc::clone(&state);
        spawn("wal", Box::new(move || answering.answer_all(&listener)))?;
        spawn("wal-ahead", Box::new(move || state.work_ahead()))?;
        Ok(own)
    }

    /// What was handed out so far.
    pub fn served(&self) -> Served {
        lock(&self.state.told).served
    }

    /// The first question to which there was no answer; given once.
    pub fn take_failure(&self) -> Option<Error> {
        lock(&self.state.told).failure.take()
    }
}

impl Drop for WalServer {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
        self.state.changed.notify_all();
        // Who waits for a connection gets one. Nobody waits for the threads: a store may hang.
        UnixStream::connect(&self.socket).ok();
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn answer_all(&self, listener: &UnixListener) {
        for stream in listener.incoming() {
            if self.is_over() {
                return;
            }
            // Who went away gets no answer, and PostgreSQL sees its command fail.
            if let Ok(stream) = stream {
                self.answer(stream).ok();
            }
        }
    }

    fn answer(&self, mut stream: UnixStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(CLIENT_LIMIT))?;
        stream.set_write_timeout(Some(CLIENT_LIMIT))?;
        let asked = read_line(&stream)?;
        match self.look(asked.trim_end()) {
            Ok(Some(bytes)) => {
                writeln!(stream, "there {}", bytes.len())?;
                stream.write_all(&bytes)
            }
            Ok(None) => writeln!(stream, "absent"),
            Err(error) => {
                let said = format!("{}: {error}", error.code());
                lock(&self.told).failure.get_or_insert(error);
                writeln!(stream, "unknown {}", said.escape_debug())
            }
        }
    }

    fn look(&self, asked: &str) -> Result<Option<Vec<u8>>> {
        let name: WalFileName = asked.parse().map_err(|_| no_wal_file(asked))?;
        let kept = match name {
            WalFileName::Segment(segment) => self.take(segment),
            _ => None,
        };
        let found = match kept {
            Some(bytes) => Some((None, bytes)),
            None => look_everywhere(
                self.archives.iter().cloned().map(Ok),
                name,
                |archive| archive.fetch(name),
                Ok,
            )
            .with_context(|| format!("fetch `{name}` for the recovery"))?
            .map(|(archive, bytes, source)| ((source == Source::Repository).then_some(archive), bytes)),
        };
        let Some((archive, bytes)) = found else { return Ok(None) };
        if let WalFileName::Segment(segment) = name {
            let server = self.archives.first().map_or(0, Archive::system_identifier);
            self.guard.as_ref().map_or(Ok(()), |guard| lock(guard).look(segment, &bytes, server))?;
            let mut told = lock(&self.told);
            told.served.segments += 1;
            told.served.bytes += bytes.len() as u64;
            drop(told);
            self.go_on_from(segment, archive, bytes.len() as u64);
        }
        Ok(Some(bytes))
    }

    /// A segment that was fetched ahead; waits for one that is on its way.
    fn take(&self, segment: SegmentName) -> Option<Vec<u8>> {
        let mut ahead = lock(&self.ahead);
        while ahead.on_their_way.contains(&segment) && !self.is_over() {
            ahead = self.changed.wait_timeout(ahead, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        ahead.kept.remove(&segment)
    }

    /// The segments behind this one are wanted, from the archive that had it or, when it was fetched ahead, from the same as
    /// before.
    fn go_on_from(&self, segment: SegmentName, archive: Option<Archive>, segment_bytes: u64) {
        let Ok(size) = SegmentSize::new(segment_bytes) else { return };
        let mut ahead = lock(&self.ahead);
        let Some(archive) = archive.or_else(|| ahead.job.as_ref().map(|(archive, ..)| archive.clone()))
        else {
            return;
        };
        let names = following(segment, size, AHEAD, AHEAD_BYTES);
        ahead.wanted = names.iter().copied().collect();
        let Ahead { wanted, kept, .. } = &mut *ahead;
        kept.retain(|name, _| wanted.contains(name));
        ahead.job = Some((archive, names, size));
        self.changed.notify_all();
    }

    fn work_ahead(&self) {
        let mut done: Option<Vec<SegmentName>> = None;
        while !self.is_over() {
            let ahead = lock(&self.ahead);
            let job = ahead.job.clone().filter(|(_, names, _)| done.as_ref() != Some(names));
            let Some((archive, names, size)) = job else {
                drop(self.changed.wait_timeout(ahead, POLL));
                continue;
            };
            drop(ahead);
            in_parallel(&names, size, |name| self.fetch_ahead(&archive, name));
            done = Some(names);
        }
    }

    /// What goes wrong here is left to who asks for it.
    fn fetch_ahead(&self, archive: &Archive, name: SegmentName) -> Option<bool> {
        let mut ahead = lock(&self.ahead);
        if self.is_over() {
            return None;
        }
        if !ahead.wanted.contains(&name) || ahead.kept.contains_key(&name) {
            return Some(false);
        }
        ahead.on_their_way.insert(name);
        drop(ahead);
        let found = archive.fetch(WalFileName::Segment(name)).ok().flatten();
        let mut ahead = lock(&self.ahead);
        ahead.on_their_way.remove(&name);
        let is_there = found.is_some();
        // Who recovers may be past it by now.
        if let Some(bytes) = found.filter(|_| ahead.wanted.contains(&name)) {
            ahead.kept.insert(name, bytes);
        }
        drop(ahead);
        self.changed.notify_all();
        is_there.then_some(true)
    }
}

fn read_line(stream: &UnixStream) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES)).read_line(&mut line)?;
    Ok(line)
}

/// The other side, `restore_command`: asks for `name` and writes it to `target`. `false` when no repository has it.
///
/// # Errors
/// Whenever that cannot be known; what the file system says about `target`.
pub fn get(socket: &Path, name: &str, target: &Path) -> Result<bool> {
    let failed = |error| Error::io(socket.display(), error).context("ask who recovers this server");
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(failed)?;
    stream.set_write_timeout(Some(CLIENT_LIMIT)).map_err(failed)?;
    writeln!(stream, "{name}").map_err(failed)?;
    let mut reader = BufReader::new(&stream);
    let mut head = String::new();
    reader.by_ref().take(LINE_BYTES).read_line(&mut head).map_err(failed)?;
    let unknown = |message: String| Error::new(ErrorKind::Unavailable, codes::WAL_MISSING, message);
    // A line without its end may mean anything.
    let line = head.strip_suffix('\n').unwrap_or_default();
    match line.split_once(' ').unwrap_or((line, "")) {
        ("absent", "") => Ok(false),
        ("there", length) => {
            let length = length.parse::<usize>().ok().filter(|length| *length <= wal::LIMIT_BYTES);
            let length = length.ok_or_else(|| unknown("the answer has no length".to_owned()))?;
            let mut bytes = Vec::new();
            reader.take(length as u64).read_to_end(&mut bytes).map_err(failed)?;
            if bytes.len() != length {
                return Err(unknown(format!("the answer ended after `{}` of `{length}` bytes", bytes.len())));
            }
            // Not synced: after a crash of the machine the recovery begins anew, and PostgreSQL asks again.
            durable::write_unsynced(target, &bytes, durable::PRIVATE)?;
            Ok(true)
        }
        ("unknown", why) => Err(unknown(format!("`{name}` cannot be fetched: {why}"))),
        _ => Err(unknown("who recovers this server went away".to_owned())),
    }
}

#[cfg(test)]
mod tests;
