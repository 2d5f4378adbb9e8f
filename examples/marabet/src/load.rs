//! The load generator: numbered markers and predictions over real HTTP, through outages.
//!
//! Invariants:
//! - Markers are numbered 1, 2, 3 … and a number is sent until it is acknowledged, so what was acknowledged is always
//!   `1..=n`, and a gap in the service's markers afterwards is a lost write.
//! - A number counts as acknowledged only when the service answered 200 and repeated run and number.
//! - It ends: by the stop flag, after [`LoadOptions::limit`], or after [`LoadOptions::max_markers`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::Agent;

use crate::random::Random;
use crate::store::MarkerSummary;

/// How long the generator sleeps at most before it looks at the stop flag again.
const STOP_POLL: Duration = Duration::from_millis(10);
/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// Where the service is now, `http://HOST:PORT`; may be changed while a load runs, as a load balancer would.
#[derive(Debug, Clone)]
pub struct BaseUrl(Arc<RwLock<String>>);

impl BaseUrl {
    /// An address; a final slash is dropped.
    pub fn new(url: &str) -> Self {
        Self(Arc::new(RwLock::new(url.trim_end_matches('/').to_owned())))
    }

    /// Sends everybody who has a clone of this to `url` from now on.
    pub fn set(&self, url: &str) {
        url.trim_end_matches('/').clone_into(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The address now.
    pub fn get(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What to send, how fast, and how long.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The service.
    pub base_url: BaseUrl,
    /// Ticks per second, 1 to 10000; each tick sends one marker and one prediction. A slow service makes it fewer.
    pub rate_per_second: u32,
    /// The name under which the markers are counted: letters, digits, `.`, `_`, `-`.
    pub run: String,
    /// Set it to end the load after the request under way.
    pub stop: Arc<AtomicBool>,
    /// The longest the load may run.
    pub limit: Duration,
    /// The most markers that may be acknowledged.
    pub max_markers: u64,
    /// How long one request may take in all before it counts as failed.
    pub request_timeout: Duration,
}

impl LoadOptions {
    /// A load on `url` at 50 ticks a second, at most an hour and 1,000,000 markers, 2 s a request.
    pub fn new(url: &str, run: impl Into<String>) -> Self {
        Self {
            base_url: BaseUrl::new(url),
            rate_per_second: 50,
            run: run.into(),
            stop: Arc::default(),
            limit: Duration::from_hours(1),
            max_markers: 1_000_000,
            request_timeout: Duration::from_secs(2),
        }
    }
}

/// A marker that the service acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Its number.
    pub number: u64,
    /// When the answer was here.
    pub at: Instant,
}

/// A time in which no request succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// The last answer before it; `None` when there was none yet.
    pub last_ok: Option<Instant>,
    /// When the first request had failed.
    pub first_failure: Instant,
    /// The first answer after it; `None` when the load ended before.
    pub first_ok_again: Option<Instant>,
    /// How many requests failed.
    pub failed_requests: u64,
    /// Why the first one failed.
    pub first_error: String,
}

impl Outage {
    /// From the last answer before to the first one after, as far as both are known.
    pub fn duration(&self) -> Option<Duration> {
        Some(self.first_ok_again?.duration_since(self.last_ok.unwrap_or(self.first_failure)))
    }
}

/// What a load did.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// The markers' run.
    pub run: String,
    /// When the load began and ended.
    pub started: Instant,
    /// See `started`.
    pub ended: Instant,
    /// Every acknowledged marker, numbered without gaps from 1.
    pub acknowledged: Vec<Acknowledgement>,
    /// The numbers that the service gave to acknowledged predictions. After a restore it may give one again.
    pub prediction_ids: Vec<i64>,
    /// How many requests were sent.
    pub requests: u64,
    /// Every time in which the service did not answer, in order.
    pub outages: Vec<Outage>,
}

impl LoadReport {
    /// The acknowledged markers that the service does not have any more.
    pub fn lost<'a>(&'a self, found: &MarkerSummary) -> impl Iterator<Item = Acknowledgement> + 'a {
        let found = found.clone();
        self.acknowledged.iter().copied().filter(move |marker| !found.contains(marker.number))
    }
}

/// Runs a load until it is stopped or reaches a limit; blocks, so run it in a thread. `on_ack` is called in it with
/// the number and time of each acknowledged marker, right after the answer.
///
/// Outages are no errors, they are in the report; only an option that makes no sense is one.
pub fn load(options: &LoadOptions, mut on_ack: impl FnMut(u64, Instant)) -> Result<LoadReport> {
    if !(1..=10_000).contains(&options.rate_per_second) {
        let message = format!("`{}` ticks per second are not from 1 to 10000", options.rate_per_second);
        return Err(Error::new(ErrorKind::Invalid, codes::SAMPLE_REQUEST, message));
    }
    let interval = Duration::from_secs(1) / options.rate_per_second;
    let mut generator = Generator::new(options);
    let deadline = generator.report.started + options.limit;
    let mut next_tick = generator.report.started;
    while generator.acknowledged() < options.max_markers && wait_until(next_tick, deadline, &options.stop) {
        if let Some(marker) = generator.send_marker() {
            on_ack(marker.number, marker.at);
        }
        generator.send_prediction();
        // Behind the schedule, we go on from now: no burst after a slow answer.
        next_tick = (next_tick + interval).max(Instant::now());
    }
    generator.report.ended = Instant::now();
    Ok(generator.report)
}

/// The markers of `run` that the service at `url` has now.
pub fn markers(url: &str, run: &str, timeout: Duration) -> Result<MarkerSummary> {
    let url = format!("{}/markers?run={run}", url.trim_end_matches('/'));
    read_answer(agent(timeout).get(&url).call())
}

/// Sleeps until `tick`; false when the load is to end instead.
fn wait_until(tick: Instant, deadline: Instant, stop: &AtomicBool) -> bool {
    loop {
        let now = Instant::now();
        if now >= deadline || stop.load(Ordering::Relaxed) {
            return false;
        }
        if now >= tick {
            return true;
        }
        thread::sleep(tick.duration_since(now).min(STOP_POLL));
    }
}

struct Generator<'a> {
    options: &'a LoadOptions,
    agent: Agent,
    random: Random,
    /// How many features the service's model takes, as long as it is known.
    features: Option<usize>,
    last_ok: Option<Instant>,
    report: LoadReport,
}

impl<'a> Generator<'a> {
    fn new(options: &'a LoadOptions) -> Self {
        let now = Instant::now();
        Self {
            options,
            agent: agent(options.request_timeout),
            random: Random::new(1),
            features: None,
            last_ok: None,
            report: LoadReport {
                run: options.run.clone(),
                started: now,
                ended: now,
                acknowledged: Vec::new(),
                prediction_ids: Vec::new(),
                requests: 0,
                outages: Vec::new(),
            },
        }
    }

    fn acknowledged(&self) -> u64 {
        self.report.acknowledged.len() as u64
    }

    fn send_marker(&mut self) -> Option<Acknowledgement> {
        let number = self.acknowledged() + 1;
        let body = json!({"run": self.options.run, "number": number});
        let answer = self.post("/marker", &body).and_then(|answer| {
            if answer == body {
                Ok(())
            } else {
                Err(unexpected(&format!("`{answer}` is no receipt of `{body}`")))
            }
        });
        let at = self.note(answer)?.1;
        let marker = Acknowledgement { number, at };
        self.report.acknowledged.push(marker);
        Some(marker)
    }

    fn send_prediction(&mut self) {
        let answer = self.predict();
        if let Some((id, _)) = self.note(answer) {
            self.report.prediction_ids.push(id);
        }
    }

    fn predict(&mut self) -> Result<i64> {
        let features = match self.features {
            Some(features) => features,
            None => self.ask_features()?,
        };
        let features: Vec<f32> = (0..features).map(|_| self.random.normal()).collect();
        let answer = self.post("/predict", &json!({"features": features}))?;
        answer["id"].as_i64().ok_or_else(|| unexpected(&format!("`{answer}` has no id")))
    }

    fn ask_features(&mut self) -> Result<usize> {
        self.report.requests += 1;
        let url = format!("{}/model", self.options.base_url.get());
        let answer: Value = read_answer(self.agent.get(&url).call())?;
        let features = answer["features"].as_u64().and_then(|count| usize::try_from(count).ok());
        self.features = features.filter(|count| (1..=1_000_000).contains(count));
        self.features.ok_or_else(|| unexpected(&format!("`{answer}` does not describe a model")))
    }

    fn post(&mut self, route: &str, body: &Value) -> Result<Value> {
        self.report.requests += 1;
        let url = format!("{}{route}", self.options.base_url.get());
        read_answer(self.agent.post(&url).send_json(body))
    }

    /// Keeps the account of outages; gives the answer with the time at which it was here.
    fn note<T>(&mut self, answer: Result<T>) -> Option<(T, Instant)> {
        let now = Instant::now();
        let during = self.report.outages.last_mut().filter(|outage| outage.first_ok_again.is_none());
        match (answer, during) {
            (Ok(answer), during) => {
                if let Some(outage) = during {
                    outage.first_ok_again = Some(now);
                }
                self.last_ok = Some(now);
                return Some((answer, now));
            }
            (Err(_), Some(outage)) => outage.failed_requests += 1,
            (Err(error), None) => self.report.outages.push(Outage {
                last_ok: self.last_ok,
                first_failure: now,
                first_ok_again: None,
                failed_requests: 1,
                first_error: error.to_string(),
            }),
        }
        // What comes back may serve another model.
        self.features = None;
        None
    }
}

fn agent(timeout: Duration) -> Agent {
    // Without proxy: the service is on this machine, whatever the environment says.
    Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}

fn read_answer<T: DeserializeOwned>(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T> {
    let failed = |error: ureq::Error| {
        Error::new(ErrorKind::Unavailable, codes::SAMPLE_ANSWER, format!("no answer: {error}"))
            .with_hint("see whether the service runs, and on which port")
    };
    let mut answer = answer.map_err(failed)?;
    let status = answer.status();
    let bytes = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec().map_err(failed)?;
    if status != 200 {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        return Err(unexpected(&format!("status {}: {text}", status.as_u16())));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| unexpected(&format!("the answer is not understood: {error}")))
}

fn unexpected(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, codes::SAMPLE_ANSWER, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_against_nobody_records_one_outage_and_ends_by_its_limit() {
        // Bound and never accepted from: the port is ours, and nobody answers on it.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut options = LoadOptions::new(&format!("http://{}/", listener.local_addr().unwrap()), "r");
        options.limit = Duration::from_millis(120);
        options.request_timeout = Duration::from_millis(30);
        let report = load(&options, |_, _| panic!("nobody acknowledged")).unwrap();
        assert!(report.acknowledged.is_empty());
        assert_eq!(report.outages.len(), 1);
        assert_eq!(report.outages[0].failed_requests, report.requests);
        assert_eq!((report.outages[0].last_ok, report.outages[0].duration()), (None, None));
    }

    #[test]
    fn an_answer_that_is_not_the_receipt_acknowledges_nothing() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let receipt = r#"{"run":"r","number":2}"#;
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", receipt.len());
            stream.write_all(format!("{head}{receipt}").as_bytes()).unwrap();
        });
        let options = LoadOptions::new(&url, "r");
        let mut generator = Generator::new(&options);
        assert_eq!(generator.send_marker(), None, "2 was acknowledged, 1 was sent");
        server.join().unwrap();
        assert!(
            generator.report.outages[0].first_error.contains("no receipt"),
            "{:?}",
            generator.report.outages
        );
    }

    #[test]
    fn a_stopped_load_sends_nothing() {
        let options = LoadOptions::new("http://127.0.0.1:1", "r");
        options.stop.store(true, Ordering::Relaxed);
        assert_eq!(load(&options, |_, _| ()).unwrap().requests, 0);
    }

    #[test]
    fn outages_are_kept_apart_by_the_answers_between_them() {
        let options = LoadOptions::new("http://127.0.0.1:1", "r");
        let mut generator = Generator::new(&options);
        for ok in [true, false, false, true, true, false] {
            generator.note(if ok { Ok(()) } else { Err(unexpected("down")) });
        }
        let outages = &generator.report.outages;
        assert_eq!(outages.iter().map(|outage| outage.failed_requests).collect::<Vec<_>>(), [2, 1]);
        assert!(outages[0].first_ok_again.is_some() && outages[0].last_ok.is_some());
        assert!(outages[0].duration().is_some() && outages[1].duration().is_none());
        assert!(outages[1].last_ok > outages[0].first_ok_again, "the later of the two answers");
    }

    #[test]
    fn a_rate_of_zero_is_refused() {
        let mut options = LoadOptions::new("http://127.0.0.1:1", "r");
        options.rate_per_second = 0;
        assert_eq!(load(&options, |_, _| ()).unwrap_err().code(), codes::SAMPLE_REQUEST);
    }

    #[test]
    fn a_marker_that_was_acknowledged_and_is_not_there_is_lost() {
        let now = Instant::now();
        let options = LoadOptions::new("http://127.0.0.1:1", "r");
        let mut report = Generator::new(&options).report;
        report.acknowledged = (1..=5).map(|number| Acknowledgement { number, at: now }).collect();
        let found = MarkerSummary { run: "r".into(), count: 2, max: 4, missing: vec![(2, 3)] };
        assert_eq!(report.lost(&found).map(|marker| marker.number).collect::<Vec<_>>(), [2, 3, 5]);
    }
}
