//! Runs the real program on a free port over a small seeded root.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use retoma_marabet::{Layout, SeedOptions, seed};
use retoma_testkit::{PATIENCE, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The rows that [`root`] seeds.
pub(crate) const ROWS: u64 = 300;
/// How many features the seeded model takes.
pub(crate) const FEATURES: usize = 16;

/// A seeded root in a temporary folder.
pub(crate) fn root() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let options = SeedOptions { rows: ROWS, model_bytes: 20_000, log_bytes: 0, seed: 1 };
    seed(folder.path(), &options, &|_| ()).unwrap();
    folder
}

/// A running service; killed when dropped.
pub(crate) struct Service {
    child: Child,
    pub(crate) url: String,
    pub(crate) layout: Layout,
}

impl Service {
    pub(crate) fn start(root: &Path) -> Self {
        let port_file = root.join("port");
        if port_file.exists() {
            std::fs::remove_file(&port_file).unwrap();
        }
        let mut child = program()
            .args(["serve", "--port", "0", "--root"])
            .arg(root)
            .arg("--port-file")
            .arg(&port_file)
            .spawn()
            .unwrap();
        let address = wait_for(|| {
            assert_eq!(child.try_wait().unwrap(), None, "the service ended instead of listening");
            std::fs::read_to_string(&port_file).ok()
        });
        // Written as a whole: whoever sees the file sees the line.
        let address = address.strip_suffix('\n').unwrap();
        Self { child, url: format!("http://{address}"), layout: Layout::new(root) }
    }

    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Kills it as a lost machine would: no warning, no cleaning up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for(|| self.child.try_wait().unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        answer(agent().get(format!("{}{path}", self.url)).call())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(agent().post(format!("{}{path}", self.url)).send_json(body))
    }

    pub(crate) fn predict(&self, first: f32) -> i64 {
        let (status, body) = self.post("/predict", &features(first));
        assert_eq!(status, 200, "{body}");
        body["id"].as_i64().unwrap()
    }

    /// Asserts that `/healthz` is red for the reason `check` alone, and gives its text.
    pub(crate) fn assert_red(&self, check: &str) -> String {
        let (status, body) = self.get("/healthz");
        assert_eq!((status, body["healthy"].as_bool()), (503, Some(false)), "{body}");
        let reasons = body["reasons"].as_array().unwrap();
        assert_eq!((reasons.len(), reasons[0]["check"].as_str()), (1, Some(check)), "{body}");
        reasons[0]["reason"].as_str().unwrap().to_owned()
    }

    pub(crate) fn assert_green(&self) {
        let (status, body) = self.get("/healthz");
        assert_eq!((status, body["healthy"].as_bool()), (200, Some(true)), "{body}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

pub(crate) fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_marabet"));
    program.stdin(Stdio::null());
    program
}

/// The body of a prediction whose first feature is `first`.
pub(crate) fn features(first: f32) -> Value {
    let mut features = vec![0.5; FEATURES];
    features[0] = first;
    serde_json::json!({"features": features})
}

/// The model that is served.
pub(crate) fn model_path(layout: &Layout) -> PathBuf {
    layout.models().join("match-winner.f32")
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    config.proxy(None).build().into()
}

fn answer(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON: {error}: {text}"));
    (answer.status().as_u16(), body)
}
