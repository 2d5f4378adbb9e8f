//! A network of a test's own: the loopback address with all its ports, and nothing else.
//!
//! For programs whose port cannot be chosen. It takes root; nothing of it is left when the test ends, however that ends.

use crate::tools::{require_tool, skip};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

/// Runs `test` in a new network, in a thread that all that it starts inherits it from. Where there can be none, this is a skip
/// with a printed reason.
///
/// # Panics
/// When `test` does, or there can be none and `REQUIRE_SERVICES` is `1`.
#[allow(clippy::panic)]
pub fn in_namespace(test: impl FnOnce() + Send) {
    let Some(mut keeper) = keeper() else { return };
    let path = format!("/proc/{}/ns/net", keeper.id());
    let outcome = std::thread::scope(|scope| {
        let inside = || {
            enter(&path).unwrap_or_else(|error| panic!("enter the network {path}: {error}"));
            test();
        };
        scope.spawn(inside).join()
    });
    // It ends by itself when its standard input does.
    drop(keeper.stdin.take());
    let _has_ended = keeper.wait().is_ok();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Moves this thread into the network at `path`, such as `/proc/PID/ns/net`; the sockets that it makes there stay there.
pub(crate) fn enter(path: &str) -> io::Result<()> {
    let network = File::open(path)?;
    Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// A process that keeps the namespace until its input ends.
fn keeper() -> Option<Child> {
    let unshare = require_tool("unshare")?;
    require_tool("ip")?;
    let mut command = Command::new(unshare);
    command.args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut line = String::new();
    let said = child.stdout.take().and_then(|out| BufReader::new(out).read_line(&mut line).ok());
    if said.is_some() && line == "up\n" {
        return Some(child);
    }
    let _has_ended = child.wait().is_ok();
    skip("network namespaces (root)", "they need root, or a system that allows them")
}
