//! Azurite, Microsoft's emulator of Azure Blob Storage, with an account of our own.

use super::{Server, free_port, request};
use crate::{require_local_tool, require_tool};
use jiff::Timestamp;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A running server. Containers must be made. Dropping it kills it.
#[derive(Debug)]
pub struct AzuriteServer {
    _server: Server,
    openssl: PathBuf,
    account: &'static str,
    key: &'static str,
    port: u16,
}

/// The account of which restic knows that it is an emulator's, at this port.
const EMULATED: (&str, &str, u16) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    10000,
);

impl AzuriteServer {
    /// The account.
    pub const ACCOUNT: &str = "retomatest";
    /// Its key: 64 bytes, as Azure's are.
    pub const KEY: &str =
        "cmV0b21hIHRlc3Qga2V5IGZvciBhenVyaXRlOyA2NCBieXRlcyBsb25nLCBhcyB0aGUgcmVhbCBvbmVzIGFyZQ==";

    /// Starts one, without containers; `None`, with a printed reason, when it is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `REQUIRE_SERVICES` is `1`.
    #[allow(clippy::panic)]
    pub fn start() -> Option<Self> {
        Self::start_one(Self::ACCOUNT, Self::KEY, free_port)
    }

    /// As [`AzuriteServer::start`], with the account and at the port where restic expects an emulator: only in a network of
    /// the test's own.
    ///
    /// # Panics
    /// As [`AzuriteServer::start`].
    pub fn start_for_restic() -> Option<Self> {
        let (account, key, port) = EMULATED;
        Self::start_one(account, key, || port)
    }

    #[allow(clippy::panic)]
    fn start_one(account: &'static str, key: &'static str, port: impl Fn() -> u16) -> Option<Self> {
        let node = require_tool("node")?;
        let openssl = require_tool("openssl")?;
        let program = require_local_tool("azurite", "node_modules/azurite/dist/src/blob/main.js")?;
        for _ in 0..5 {
            let port = port();
            let command = |data: &Path| {
                let mut command = Command::new(&node);
                command.arg(&program).args([
                    "--disableTelemetry",
                    "--skipApiVersionCheck",
                    "--blobHost",
                    "127.0.0.1",
                ]);
                command.arg("--blobPort").arg(port.to_string()).arg("--location").arg(data);
                command.env("AZURITE_ACCOUNTS", format!("{account}:{key}"));
                command
            };
            let is_ready = || request(port, "GET", "/", &[], "").is_some();
            if let Some(server) = Server::start("Azurite", command, is_ready) {
                return Some(Self { _server: server, openssl, account, key, port });
            }
        }
        panic!("no free port for Azurite");
    }

    /// Makes a container, with a request that is signed by hand: the stores under test make none.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn make_container(&self, name: &str) {
        let date = Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let version = "2021-12-02";
        let path = format!("/{}/{name}", self.account);
        // The emulator has the account in the path, and therefore twice in what is signed.
        let resource = format!("/{}{path}\nrestype:container", self.account);
        let signed = format!("PUT{}x-ms-date:{date}\nx-ms-version:{version}\n{resource}", "\n".repeat(12));
        let authorization = format!("SharedKey {}:{}", self.account, self.sign(&signed));
        let headers =
            [("x-ms-date", &*date), ("x-ms-version", version), ("authorization", authorization.as_str())];
        let status = request(self.port, "PUT", &format!("{path}?restype=container"), &headers, "");
        assert_eq!(status, Some(201), "make container {name}");
    }

    /// HMAC-SHA256 with the account's key, in base64; made by openssl.
    ///
    /// # Panics
    /// When it fails.
    #[allow(clippy::unwrap_used)]
    pub fn sign(&self, text: &str) -> String {
        let openssl = |arguments: &[&str], input: &[u8]| {
            let mut command = Command::new(&self.openssl);
            let mut child =
                command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(input).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            output.stdout
        };
        let key = openssl(&["base64", "-d", "-A"], self.key.as_bytes());
        let digits = key.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let hex: String = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect();
        let option = format!("hexkey:{hex}");
        let mac =
            openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", &option, "-binary"], text.as_bytes());
        String::from_utf8(openssl(&["base64", "-A"], &mac)).unwrap()
    }

    /// The environment of a program that may only create blobs in a container, and list them: a shared access signature.
    pub fn create_only_variables(&self, container: &str) -> Vec<(String, String)> {
        let version = "2021-12-02";
        let until = Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let resource = format!("/blob/{}/{container}", self.account);
        // Rights, beginning, end, resource; identifier, address, protocol; version, kind; snapshot and what overrides headers.
        let signed = format!("cl\n\n{until}\n{resource}\n\n\n\n{version}\nc\n\n\n\n\n\n\n");
        let signature = self.sign(&signed).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let until = until.replace(':', "%3A");
        let token = format!("sv={version}&sr=c&sp=cl&se={until}&sig={signature}");
        let mut variables = self.variables();
        variables.retain(|(name, _)| name != "AZURE_STORAGE_ACCOUNT_KEY");
        variables.push(("AZURE_STORAGE_SAS_TOKEN".to_owned(), token));
        variables
    }

    /// The environment of restic, for the account of [`AzuriteServer::start_for_restic`].
    pub fn restic_variables(&self) -> [(&'static str, &'static str); 2] {
        [("AZURE_ACCOUNT_NAME", self.account), ("AZURE_ACCOUNT_KEY", self.key)]
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The environment of a program that may do everything in the account.
    pub fn variables(&self) -> Vec<(String, String)> {
        self.variables_at(self.port)
    }

    /// The same, by way of another port.
    pub fn variables_at(&self, port: u16) -> Vec<(String, String)> {
        [
            ("AZURE_STORAGE_ENDPOINT", format!("http://127.0.0.1:{port}/{}", self.account)),
            ("AZURE_ALLOW_HTTP", "true".to_owned()),
            ("AZURE_STORAGE_ACCOUNT_NAME", self.account.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", self.key.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}
