//! Waiting for what another thread or process does.

use std::time::{Duration, Instant};

/// Longer than anything in a test takes on a busy machine; then the test fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none after [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(question: impl FnMut() -> Option<T>) -> T {
    wait_for_what("an answer", question)
}

/// As [`wait_for`], and the failure tells what was waited for.
///
/// # Panics
/// When there is none after [`PATIENCE`].
#[track_caller]
pub fn wait_for_what<T>(what: &str, question: impl FnMut() -> Option<T>) -> T {
    wait_for_long(what, PATIENCE, question)
}

/// As [`wait_for_what`], for what takes as long as what was done before: a load, an outage.
///
/// # Panics
/// When there is no answer after `patience`.
#[track_caller]
pub fn wait_for_long<T>(what: &str, patience: Duration, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
