//! A server of our own on a copy of a data set: without any network, and without writing anything.

use super::address::Address;
use super::connection::Connection;
use super::facts::DUMP_NAME;
use crate::ScratchFolder;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a server that loads is asked whether it is done.
const PAUSE: Duration = Duration::from_millis(20);
/// How much of the server's log is looked at, from its end, in bytes.
const LOG_BYTES: i64 = 64 << 10;
/// How much of it a message shows where no line of it is a complaint, in characters.
const TAIL_CHARS: usize = 280;

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Scratch {
    child: Child,
    connection: Connection,
    /// Its socket and its log; goes last.
    _folder: ScratchFolder,
}

impl Scratch {
    /// Starts `program` on the `dump.rdb` in `folder`, with so many databases, and waits until it is loaded. It listens on a
    /// socket in a folder of its own, which only this user may enter, and on no port.
    ///
    /// # Errors
    /// `R0439` when there is no such program, or it does not load the data within `limit`; `Cancelled` when `is_stopped`.
    pub fn start(
        program: &Path,
        folder: &Path,
        databases: u64,
        limit: Duration,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let home = ScratchFolder::new("retoma-redis-")?;
        let (socket, log) = (home.path().join("s"), home.path().join("log"));
        let settings = [
            ("dir", quoted(folder)),
            ("unixsocket", quoted(&socket)),
            ("dbfilename", DUMP_NAME.to_owned()),
            ("databases", databases.max(1).to_string()),
            ("port", "0".into()),
            ("unixsocketperm", "700".into()),
            ("save", "\"\"".into()),
            ("appendonly", "no".into()),
            ("maxmemory", "0".into()),
            ("daemonize", "no".into()),
            ("logfile", "\"\"".into()),
        ];
        let mut text = String::new();
        for (name, value) in settings {
            // Writing into a `String` cannot fail.
            let _written = writeln!(text, "{name} {value}").is_ok();
        }
        let log_file = fs::File::create(&log).map_err(|error| Error::io(log.display(), error))?;
        let mut child = Command::new(program)
            .arg("-")
            .env_remove("REDISCLI_AUTH")
            .stdin(Stdio::piped())
            .stdout(log_file)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| missing(program, &error))?;
        // One that does not read its settings ends, which is seen below.
        let _given = child.stdin.take().is_some_and(|mut input| input.write_all(text.as_bytes()).is_ok());
        let deadline = Instant::now() + limit;
        let address = Address::on_socket(&socket);
        loop {
            let status = child.try_wait();
            let has_ended = !matches!(status, Ok(None));
            if !has_ended && let Ok(connection) = Connection::connect(&address) {
                return Ok(Self { child, connection, _folder: home });
            }
            let is_late = Instant::now() >= deadline;
            if !has_ended && !is_late && !is_stopped() {
                std::thread::sleep(PAUSE);
                continue;
            }
            end(&mut child);
            if !has_ended && !is_late {
                return Err(Error::new(ErrorKind::Cancelled, codes::CANCELLED, "the check was stopped"));
            }
            let killed = status.ok().flatten().and_then(|status| status.signal());
            let why = match killed {
                Some(signal) => format!("is killed by signal {signal}"),
                None if has_ended => "ends".to_owned(),
                None => "takes too long".to_owned(),
            };
            let message =
                format!("a server on the copy {why} before it has loaded it: `{}`", complaint(&log));
            return Err(Error::new(ErrorKind::Corrupt, codes::REDIS_SCRATCH, message).with_hint(
                "compare the versions of the server and of the backup (`redis_version` in its facts), and its modules; see \
                 whether there is memory for the data set",
            ));
        }
    }

    /// The connection with it.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// It writes nothing, so that killing it loses nothing.
fn end(child: &mut Child) {
    let _was_running = child.kill().is_ok();
    let _was_there = child.wait().is_ok();
}

fn missing(program: &Path, error: &std::io::Error) -> Error {
    let message = format!("`{}` cannot be started: {error}", program.display());
    Error::new(ErrorKind::NotFound, codes::REDIS_SCRATCH, message).with_hint(
        "install Redis's server on the machine that checks copies: the package `redis-server` or `redis`",
    )
}

/// A path as a value of `redis.conf`.
fn quoted(path: &Path) -> String {
    let byte = |text: String, byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
            text + &char::from(*byte).to_string()
        }
        other => text + &format!("\\x{other:02x}"),
    };
    format!("\"{}\"", path.as_os_str().as_bytes().iter().fold(String::new(), byte))
}

/// Why the server has ended, by its log.
fn complaint(log: &Path) -> String {
    let read = || {
        let mut file = fs::File::open(log)?;
        let length = i64::try_from(file.metadata()?.len()).unwrap_or(0);
        file.seek(SeekFrom::End(-length.min(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let text = complaint_in(&String::from_utf8_lossy(&read().unwrap_or_default()));
    super::error::shown(text.as_bytes())
}

/// What a server's log complains of once it has come up: its lines of the level `#`. Behind them it may report at length
/// how far it came in the data set, which is not why. Without such lines, the end of the log.
fn complaint_in(log: &str) -> String {
    let after = log.rsplit_once("Server initialized").map_or(log, |(_, after)| after);
    // Not about the data, but about the machine.
    let lines = after.lines().filter_map(|line| line.split_once(" # "));
    let complaints: Vec<&str> =
        lines.map(|(_, text)| text.trim()).filter(|text| !text.starts_with("WARNING")).collect();
    if !complaints.is_empty() {
        return complaints.join("; ");
    }
    let end = log.trim_end();
    let start = end.char_indices().rev().nth(TAIL_CHARS - 1).map_or(0, |(at, _)| at);
    end[start..].trim().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_become_settings() {
        assert_eq!(quoted(Path::new("/srv/a b\"\n\\")), "\"/srv/a\\x20b\\x22\\x0a\\x5c\"");
    }

    #[test]
    fn a_missing_program_is_named() {
        let folder = retoma_testkit::Folder::new();
        let started = Scratch::start(
            Path::new("/nowhere/redis-server"),
            folder.path(),
            1,
            Duration::from_secs(1),
            &|| false,
        );
        let error = started.unwrap_err();
        assert_eq!((error.code(), error.kind()), (codes::REDIS_SCRATCH, ErrorKind::NotFound));
    }

    #[test]
    fn a_server_says_why_it_ends_and_not_how_far_it_came() {
        let start = "1:C 22 Nov 2026 18:05:29.377 # Configuration loaded\n1:M 22 Nov 2026 18:05:29.400 # Server initialized\n\
                     1:M 22 Nov 2026 18:05:29.400 # WARNING Memory overcommit must be enabled!\n";
        let complaint = |rest: &str| complaint_in(&format!("{start}{rest}"));
        assert_eq!(
            complaint(
                "1:M 22 Nov 2026 18:05:29.379 * RDB age 0 seconds\n1:M 22 Nov 2026 18:05:29.379 # Wrong RDB checksum\n\
                 1:M 22 Nov 2026 18:05:29.379 # Internal error in RDB reading\n[offset 0] Checking RDB file dump.rdb\n"
            ),
            "Wrong RDB checksum; Internal error in RDB reading"
        );
        // Killed while it loads; killed at once; a settings error, before anything is logged.
        assert!(
            complaint("1:M 22 Nov 2026 18:05:29.379 * RDB age 0 seconds\n").ends_with("* RDB age 0 seconds")
        );
        assert_eq!(complaint_in(""), "");
        assert_eq!(complaint_in("*** FATAL ***\nBad directive\n"), "*** FATAL *** Bad directive");
        let long = "é".repeat(1000);
        assert_eq!(complaint_in(&long).chars().count(), TAIL_CHARS);
    }
}
