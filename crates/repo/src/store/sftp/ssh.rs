//! The system's `ssh` as the way to the server: its configuration, agent, keys and known hosts are the user's own.
//!
//! `ssh` never asks (`BatchMode`), and whether a host is known is its decision alone: nothing here loosens it. It runs
//! in a process group of its own, since Ctrl-C in a terminal is for us to end orderly, which needs the connection.

use super::session::{Failure, Session};
use super::target::Target;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How much of what `ssh` prints is kept, in bytes: the end, where the reason is.
const PRINTED_BYTES: usize = 8 * 1024;
/// How long `ssh` may take to end after the connection did.
const END: Duration = Duration::from_secs(5);
/// How long another holder of its standard error (a master of shared connections) is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Never asks; notices a dead connection within a minute; leaves tunnels of the configuration alone.
const OPTIONS: &[&str] = &[
    "BatchMode=yes",
    "ConnectTimeout=30",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RequestTTY=no",
];

/// Starts `ssh`, or `command` (as a shell reads it) in its place, and greets the server.
pub(super) async fn connect(target: &Target, command: Option<&str>) -> Result<Session, Failure> {
    let mut child = started(target, command)?;
    let (Some(output), Some(input), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Failure::Lost("`ssh` was started without pipes".to_owned()));
    };
    let printed = Arc::new(Mutex::new(Vec::new()));
    let listener = tokio::spawn(keep_end(stderr, printed.clone()));
    Session::start(input, output, move |reason| last_words(reason, child, listener, printed)).await
}

fn started(target: &Target, command: Option<&str>) -> Result<Child, Failure> {
    let mut ssh = match command {
        None => Command::new("ssh"),
        // As git runs `GIT_SSH_COMMAND`: a command with its own arguments, and ours behind them.
        Some(command) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("{command} \"$@\"")).arg("ssh");
            shell
        }
    };
    ssh.args(arguments(target)).kill_on_drop(true).process_group(0);
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ssh.spawn().map_err(|error| Failure::Lost(format!("`ssh` cannot be started: {error}")))
}

fn arguments(target: &Target) -> Vec<String> {
    let mut arguments = Vec::new();
    for option in OPTIONS {
        arguments.extend(["-o".to_owned(), (*option).to_owned()]);
    }
    if let Some(port) = target.port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    if let Some(user) = &target.user {
        arguments.extend(["-l".to_owned(), user.clone()]);
    }
    arguments.extend(["-s", "--", &target.host, "sftp"].map(str::to_owned));
    arguments
}

async fn keep_end(mut stderr: impl AsyncRead + Unpin, printed: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.extend_from_slice(&buffer[..length]);
        let beyond = printed.len().saturating_sub(PRINTED_BYTES);
        printed.drain(..beyond);
    }
}

/// The reason, and on the lines after it what `ssh` printed.
async fn last_words(
    reason: String,
    mut child: Child,
    mut listener: JoinHandle<()>,
    printed: Arc<Mutex<Vec<u8>>>,
) -> String {
    if timeout(END, child.wait()).await.is_err() {
        let _is_gone = child.kill().await.is_ok();
    }
    if timeout(LAST_WORDS, &mut listener).await.is_err() {
        listener.abort();
    }
    let printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
    format!("{reason}\n{}", String::from_utf8_lossy(&printed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use url::Url;

    #[test]
    fn ssh_is_told_never_to_ask_and_nothing_about_host_keys() {
        let target = Target::parse(&Url::parse("sftp://u@h:2222/x").unwrap()).unwrap();
        let arguments = arguments(&target).join(" ");
        assert!(arguments.contains("-o BatchMode=yes"), "{arguments}");
        assert!(arguments.ends_with("-p 2222 -l u -s -- h sftp"), "{arguments}");
        assert!(!arguments.contains("HostKey"), "{arguments}");
    }

    #[tokio::test]
    async fn what_the_command_prints_is_in_the_failure() {
        let target = Target::parse(&Url::parse("sftp://h/x").unwrap()).unwrap();
        let failure = connect(&target, Some("echo 'no way' >&2; false")).await.unwrap_err();
        assert_eq!(failure, Failure::Lost("the connection ended\nno way\n".to_owned()));
        let failure = connect(&target, Some("no-such-program-of-ours")).await.unwrap_err();
        assert!(matches!(&failure, Failure::Lost(text) if text.contains("not found")), "{failure:?}");
    }
}
