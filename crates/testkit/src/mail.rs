//! A mail server for tests: Debian's `aiosmtpd`, on the loopback address.

use crate::{Folder, require_tool, wait_for_what};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Where Debian's Python is, which knows Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

/// How the server wants to be talked to.
#[derive(Debug, Clone, Copy, Default)]
pub struct MailOptions {
    /// `none`, `starttls` (and nothing before it) or `tls`; `none` when empty.
    pub security: &'static str,
    /// The password of the user `retoma`, who must log in; nobody needs to when empty.
    pub password: &'static str,
}

/// A running server. It refuses addresses that begin with `refused`. Dropping it kills it.
#[derive(Debug)]
pub struct MailServer {
    child: Child,
    folder: Folder,
    port: u16,
}

impl MailServer {
    /// Starts one; `None` where `aiosmtpd` or `openssl` is not installed.
    ///
    /// # Panics
    /// When it does not start.
    #[allow(clippy::unwrap_used)]
    pub fn start(options: MailOptions) -> Option<Self> {
        require_tool("aiosmtpd")?;
        let openssl = require_tool("openssl")?;
        let folder = Folder::new();
        fs::write(folder.join("ext"), "subjectAltName=DNS:localhost\n").unwrap();
        for words in [
            "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=authority -keyout ca.key -out ca.pem",
            "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out request.pem",
            "x509 -req -days 30 -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -out certificate.pem",
        ] {
            let made =
                Command::new(&openssl).current_dir(folder.path()).args(words.split_whitespace()).output();
            let made = made.unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        fs::write(folder.join("mail.py"), include_str!("mail.py")).unwrap();
        let security = if options.security.is_empty() { "none" } else { options.security };
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new(PYTHON);
        command.current_dir(folder.path()).args([
            "mail.py",
            "certificate.pem",
            "key.pem",
            security,
            options.password,
        ]);
        command.args(["address", "mails"]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        let port = wait_for_what("the mail server to listen", || {
            let log = || fs::read_to_string(folder.join("log")).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "{}", log());
            fs::read_to_string(folder.join("address")).ok()?.parse().ok()
        });
        Some(Self { child, folder, port })
    }

    /// `localhost` and its port.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority of the certificate that it shows, which is for `localhost`.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// What it took, each as one line of JSON: `from`, `to`, `tls`, `user` and the whole `message`.
    pub fn mails(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("mails")).unwrap_or_default();
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
