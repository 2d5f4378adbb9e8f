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
pub fn wait_for_what<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
