//! The S3 server of the benchmark: `SeaweedFS`, as the tests install it.

use crate::sh::{self, Result};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// For so long it may start.
const PATIENCE: Duration = Duration::from_mins(1);

/// Who may do what there: signatures are checked as elsewhere.
const IDENTITIES: &str = r#"{"identities":[{"name":"bench","credentials":[{"accessKey":"key","secretKey":"secret"}],"actions":["Admin","Read","Write","List"]}]}"#;

/// Runs until it is dropped.
pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
}

impl Server {
    /// One with its data in `folder` and the bucket `bench`.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let weed = sh::root().join("target/tools/venv/bin/weed");
        let ports = free_ports::<8>()?;
        let names = [
            "s3.port",
            "filer.port",
            "master.port",
            "volume.port",
            "s3.port.grpc",
            "filer.port.grpc",
            "master.port.grpc",
            "volume.port.grpc",
        ];
        sh::make_dir(folder)?;
        let config = folder.with_extension("json");
        sh::write(&config, IDENTITIES)?;
        let log = std::fs::File::create(folder.with_extension("log")).map_err(|error| error.to_string())?;
        let other = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(&weed);
        command.args(["server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]);
        command.args([
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=100",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]);
        command.args(names.iter().zip(ports).map(|(name, port)| format!("-{name}={port}")));
        command.arg(format!("-s3.config={}", config.display()));
        command.arg(format!("-dir={}", folder.display())).stdin(Stdio::null()).stdout(log).stderr(other);
        let child = command.spawn().map_err(|error| format!("cannot start `{}`: {error}", weed.display()))?;
        let server = Self { child, port: ports[0] };
        let began = Instant::now();
        // A bucket is made, and a file stored, once the parts of the server know each other.
        let filer = |method, path| status(ports[1], method, path).unwrap_or_default();
        while !(filer("PUT", "/probe").starts_with('2')
            && status(ports[0], "GET", "/").is_some()
            // 409: an earlier look has made it.
            && ["200", "201", "409"].contains(&filer("POST", "/buckets/bench/").trim()))
        {
            if began.elapsed() > PATIENCE {
                return Err(format!(
                    "the S3 server did not start: see `{}`",
                    folder.with_extension("log").display()
                ));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<std::io::Result<_>>()
        .map_err(|error| format!("no free port: {error}"))?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr().map_err(|error| error.to_string())?.port();
    }
    Ok(ports)
}

/// The status of the answer to a request without contents.
fn status(port: u16, method: &str, path: &str) -> Option<String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ask().ok()?.strip_prefix("HTTP/1.1 ").map(str::to_owned)
}
