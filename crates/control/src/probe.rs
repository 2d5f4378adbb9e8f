//! Looking at a service from outside, over HTTP, as its users do.

use retoma_core::manifest::HttpCheck;
use std::fmt;
use std::time::{Duration, Instant};

/// The largest answer that is read, in bytes.
pub const ANSWER_LIMIT_BYTES: u64 = 1 << 20;

/// What one look at a service found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// How long the answer, or its absence, took.
    pub latency: Duration,
    /// What came.
    pub outcome: Outcome,
    /// The answer's body as far as it is text and not too long.
    pub body: String,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this status.
    Answered(u16),
    /// Nobody listens.
    Refused,
    /// No answer within the time limit.
    TimedOut,
    /// Something else went wrong, in words.
    Failed(String),
}

impl Observation {
    /// Whether the answer has the status `expected`.
    pub fn is_status(&self, expected: u16) -> bool {
        self.outcome == Outcome::Answered(expected)
    }

    /// Whether anybody listens there at all, healthy or not; unknown counts as yes.
    pub fn is_anybody_there(&self) -> bool {
        self.outcome != Outcome::Refused
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => write!(f, "status {status}"),
            Self::Refused => f.write_str("nobody listens"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// An agent that follows no proxy (what is probed is named in the manifest) and takes each status as an answer.
pub(crate) fn agent(limit: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(limit)).http_status_as_error(false);
    config.proxy(None).max_redirects(0).build().into()
}

/// Fetches `url` once. Each look makes a connection of its own: an old one would not notice that the door is closed.
pub fn get(url: &str, limit: Duration) -> Observation {
    let started = Instant::now();
    let answer = agent(limit).get(url).header("connection", "close").call();
    observe(started, answer)
}

pub(crate) fn observe(
    started: Instant,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Observation {
    let (outcome, body) = match answer {
        Ok(mut answer) => {
            let status = answer.status().as_u16();
            match answer.body_mut().with_config().limit(ANSWER_LIMIT_BYTES).lossy_utf8(true).read_to_string()
            {
                Ok(body) => (Outcome::Answered(status), body),
                Err(error) => (failure(&error), String::new()),
            }
        }
        Err(error) => (failure(&error), String::new()),
    };
    Observation { latency: started.elapsed(), outcome, body }
}

fn failure(error: &ureq::Error) -> Outcome {
    match error {
        ureq::Error::Timeout(_) => Outcome::TimedOut,
        ureq::Error::ConnectionFailed => Outcome::Refused,
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => Outcome::Refused,
        other => Outcome::Failed(other.to_string()),
    }
}

/// Why `observation` does not fulfil `check`; `None` when it does. The one place where an answer is compared.
pub fn unfulfilled(check: &HttpCheck, observation: &Observation) -> Option<String> {
    if !observation.is_status(check.expect_status) {
        return Some(format!("{} instead of status {}", observation.outcome, check.expect_status));
    }
    let text = check.expect_body.as_ref()?;
    (!observation.body.contains(text)).then(|| format!("the body does not contain `{text}`"))
}

#[cfg(test)]
pub(crate) mod tests;
