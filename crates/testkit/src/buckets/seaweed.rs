//! `SeaweedFS`, whose S3 gateway checks signatures, rights and conditional writes.

use super::s3::S3Client;
use super::{Server, free_port, request};
use crate::require_local_tool;
use std::fs;
use std::process::Command;

/// A running server. Buckets must be made: it makes none by itself. Dropping it kills it.
#[derive(Debug)]
pub struct SeaweedServer {
    _server: Server,
    port: u16,
    filer_port: u16,
}

impl SeaweedServer {
    /// Who may do everything.
    pub const KEY: &str = "retoma-admin-key";
    /// The secret of [`SeaweedServer::KEY`].
    pub const SECRET: &str = "retoma-admin-secret";
    /// Who may only read and list.
    pub const READER_KEY: &str = "retoma-reader-key";
    /// The secret of [`SeaweedServer::READER_KEY`].
    pub const READER_SECRET: &str = "retoma-reader-secret";

    /// Users, each with a key of its name, who may do nothing but what a bucket's policy says.
    pub const ROLES: [&str; 4] =
        ["retoma-far-writer", "retoma-far-reader", "retoma-far-pruner", "retoma-other-writer"];

    /// Starts one, without buckets; `None`, with a printed reason, when it is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `REQUIRE_SERVICES` is `1`.
    #[allow(clippy::panic)]
    pub fn start() -> Option<Self> {
        let weed = require_local_tool("weed", "venv/bin/weed")?;
        for _ in 0..5 {
            let ports: Vec<u16> = (0..8).map(|_| free_port()).collect();
            let [port, filer_port] = [ports[0], ports[1]];
            let command = |data: &std::path::Path| {
                let config = data.with_file_name("s3.json");
                let written = fs::write(&config, identities());
                written.unwrap_or_else(|error| panic!("write the identities for S3: {error}"));
                let mut command = Command::new(&weed);
                command.args([
                    "server",
                    "-s3",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    "-s3.autoCreateBucket=false",
                ]);
                command.args(["-master.volumeSizeLimitMB=64", "-volume.max=100", "-master.telemetry=false"]);
                command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
                for (name, port) in [
                    ("s3.port", 0),
                    ("filer.port", 1),
                    ("master.port", 2),
                    ("volume.port", 3),
                    ("s3.port.grpc", 4),
                    ("filer.port.grpc", 5),
                    ("master.port.grpc", 6),
                    ("volume.port.grpc", 7),
                ] {
                    command.arg(format!("-{name}={}", ports[port]));
                }
                command
                    .arg(format!("-dir={}", data.display()))
                    .arg(format!("-s3.config={}", config.display()));
                command
            };
            // A file is stored once the filer knows a volume.
            let is_ready = || {
                request(filer_port, "PUT", "/probe", &[], "x").is_some_and(|status| status < 300)
                    && request(port, "GET", "/", &[], "").is_some()
            };
            if let Some(server) = Server::start("SeaweedFS", command, is_ready) {
                return Some(Self { _server: server, port, filer_port });
            }
        }
        panic!("no free ports for SeaweedFS");
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn make_bucket(&self, name: &str) {
        let status = request(self.filer_port, "POST", &format!("/buckets/{name}/"), &[], "");
        assert!(status.is_some_and(|status| status < 300), "make bucket {name}: {status:?}");
    }

    /// Makes a bucket with object lock and versions.
    pub fn make_locked_bucket(&self, name: &str) {
        self.admin(name).must("PUT", "", &[], &[("x-amz-bucket-object-lock-enabled", "true")], "");
    }

    /// The bucket, with all rights.
    pub fn admin(&self, bucket: &str) -> S3Client {
        S3Client::new(self.port, bucket, (Self::KEY, Self::SECRET))
    }

    /// The bucket, with the rights that its policy gives one of [`SeaweedServer::ROLES`].
    pub fn role(&self, bucket: &str, role: &str) -> S3Client {
        S3Client::new(self.port, bucket, (role, &role_secret(role)))
    }

    /// The environment of a program that has the rights of one of [`SeaweedServer::ROLES`].
    pub fn role_variables(&self, role: &str) -> Vec<(String, String)> {
        variables(&self.endpoint(), role, &role_secret(role))
    }

    /// The port of its S3 gateway.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What `AWS_ENDPOINT_URL` is to be.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The environment of a program that may do everything here.
    pub fn variables(&self) -> Vec<(String, String)> {
        variables(&self.endpoint(), Self::KEY, Self::SECRET)
    }

    /// The environment of a program that may only read and list.
    pub fn reader_variables(&self) -> Vec<(String, String)> {
        variables(&self.endpoint(), Self::READER_KEY, Self::READER_SECRET)
    }
}

fn variables(endpoint: &str, key: &str, secret: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", key),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn role_secret(role: &str) -> String {
    format!("secret-of-{role}")
}

fn identities() -> String {
    let identity = |name: &str, key: &str, secret: &str, actions: &str| {
        format!(
            r#"{{"name":"{name}","credentials":[{{"accessKey":"{key}","secretKey":"{secret}"}}],"actions":[{actions}]}}"#
        )
    };
    let admin =
        identity("admin", SeaweedServer::KEY, SeaweedServer::SECRET, r#""Admin","Read","Write","List""#);
    let reader =
        identity("reader", SeaweedServer::READER_KEY, SeaweedServer::READER_SECRET, r#""Read","List""#);
    let roles: Vec<String> =
        SeaweedServer::ROLES.iter().map(|role| identity(role, role, &role_secret(role), "")).collect();
    format!(r#"{{"identities":[{admin},{reader},{}]}}"#, roles.join(","))
}
