//! TLS with certificates made by the `openssl` program.

use super::{code, connect, value};
use retoma_testkit::{Folder, PostgresOptions, PostgresServer, require_tool};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `openssl`; key and certificate lie in `folder`.
fn openssl(program: &Path, folder: &Path, arguments: &str) {
    let output = Command::new(program).current_dir(folder).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a server's certificate for `localhost` that it signed; another one, for nobody.
struct Certificates {
    folder: Folder,
}

impl Certificates {
    fn make() -> Option<Self> {
        let program = require_tool("openssl")?;
        let folder = Folder::new();
        let run = |arguments: &str| openssl(&program, folder.path(), arguments);
        for name in ["ca", "other"] {
            run(&format!(
                "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN={name} -keyout {name}.key -out {name}.crt"
            ));
        }
        std::fs::write(folder.join("ext"), "subjectAltName=DNS:localhost\n").unwrap();
        run("req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr");
        run(
            "x509 -req -sha384 -days 30 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile ext -out server.crt",
        );
        run(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=x -addext subjectAltName=DNS:localhost \
             -keyout self.key -out self.crt",
        );
        Some(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A server that has TLS with this certificate, and asks for a password.
    fn server(&self, name: &str) -> Option<PostgresServer> {
        let mut server = PostgresServer::start_with(&PostgresOptions {
            password: Some("secret".into()),
            hba: vec![
                "hostnossl all plain 127.0.0.1/32 trust".into(),
                "host all plain 127.0.0.1/32 reject".into(),
            ],
            ..PostgresOptions::default()
        })?;
        for kind in ["crt", "key"] {
            let text = std::fs::read_to_string(self.path(&format!("{name}.{kind}"))).unwrap();
            server.write(&server.data_dir().join(format!("server.{kind}")), &text, 0o600);
        }
        server.append_conf(&["ssl = on".into()]);
        server.restart();
        Some(server)
    }

    /// An address with these parameters; `sslrootcert` is a file of ours.
    fn url(&self, server: &PostgresServer, host: &str, parameters: &str) -> String {
        let parameters =
            parameters.replace("sslrootcert=", &format!("sslrootcert={}/", self.folder.path().display()));
        format!("postgres://postgres:secret@{host}:{}/postgres?{parameters}", server.port())
    }
}

#[test]
fn certificates_are_checked_as_the_mode_asks() {
    let Some(certificates) = Certificates::make() else { return };
    let Some(server) = certificates.server("server") else { return };
    for (host, parameters) in [
        ("localhost", "sslmode=verify-full&sslrootcert=ca.crt"),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=ca.crt"),
        ("localhost", "sslmode=verify-full&sslrootcert=server.crt"),
        ("127.0.0.1", "sslmode=require&sslrootcert=ca.crt"),
        ("127.0.0.1", "sslmode=require"),
        ("127.0.0.1", "sslmode=prefer"),
        ("127.0.0.1", ""),
        ("localhost", "sslmode=verify-full&sslrootcert=ca.crt&channel_binding=require"),
        ("localhost", "sslmode=require&channel_binding=disable"),
    ] {
        let mut connection = connect(&certificates.url(&server, host, parameters))
            .unwrap_or_else(|e| panic!("{parameters}: {e}"));
        assert!(connection.is_encrypted(), "{parameters}");
        let seen = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
        assert_eq!(value(&mut connection, seen), "TLSv1.3", "{parameters}");
    }
    for (host, parameters, expected) in [
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=ca.crt", "R0415 Unauthorized"),
        ("localhost", "sslmode=verify-full&sslrootcert=other.crt", "R0415 Unauthorized"),
        ("localhost", "sslmode=verify-ca&sslrootcert=other.crt", "R0415 Unauthorized"),
        ("localhost", "sslmode=require&sslrootcert=other.crt", "R0415 Unauthorized"),
        ("localhost", "sslmode=verify-full", "R0415 Invalid"),
        ("localhost", "sslmode=verify-full&sslrootcert=missing.crt", "R0415 Invalid"),
        ("localhost", "sslmode=verify-full&sslrootcert=ca.key", "R0415 Invalid"),
        ("127.0.0.1", "sslmode=disable&channel_binding=require", "R0412 Unauthorized"),
    ] {
        let error = connect(&certificates.url(&server, host, parameters)).unwrap_err();
        assert_eq!(code(&error), expected, "{parameters}: {error}");
    }
    // `prefer` goes on without TLS where the server wants it so.
    let plain = format!("postgres://plain@127.0.0.1:{}/postgres?sslmode=", server.port());
    server.psql("CREATE USER plain");
    assert!(!connect(&format!("{plain}prefer")).unwrap().is_encrypted());
    assert_eq!(code(&connect(&format!("{plain}require")).unwrap_err()), "R0412 Unauthorized");
}

#[test]
fn a_self_signed_certificate_is_trusted_by_itself() {
    let Some(certificates) = Certificates::make() else { return };
    let Some(server) = certificates.server("self") else { return };
    let url = |parameters: &str| certificates.url(&server, "localhost", parameters);
    let mut connection =
        connect(&url("sslmode=verify-full&sslrootcert=self.crt&channel_binding=require")).unwrap();
    // More than TLS puts into one record, and more than one read takes.
    assert_eq!(value(&mut connection, "SELECT repeat('x', 5000000)").len(), 5_000_000);
    assert_eq!(
        code(&connect(&url("sslmode=verify-full&sslrootcert=ca.crt")).unwrap_err()),
        "R0415 Unauthorized"
    );
}

#[test]
fn a_server_without_tls_is_refused_when_it_is_asked_for() {
    let Some(server) = PostgresServer::start() else { return };
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = connect(&format!("{}?sslmode={mode}", server.url())).unwrap_err();
        assert_eq!(code(&error), "R0415 Unsupported", "{error}");
    }
    assert!(connect(&format!("{}&sslmode=verify-full", server.socket_url())).is_ok(), "a socket needs none");
}
