//! Passwords, rights, sockets and TLS.

use super::{Home, address, code};
use retoma_sources::redis::{Address, Connection};
use retoma_testkit::{Folder, RedisOptions, RedisServer, RedisTls, require_tool};
use std::path::Path;
use std::process::Command;

fn refused(url: &str) -> String {
    let error = Connection::connect(&address(url)).unwrap_err();
    assert!(!format!("{error} {:?}", error.hint()).contains("wrong"), "{error}");
    code(&error)
}

#[test]
fn passwords_and_rights_are_told_apart() {
    let options = RedisOptions {
        password: Some("secret".into()),
        users: vec![
            "backup on >other allkeys +psync +replconf +info +ping +config|get".into(),
            "bare on >other +psync +replconf +info +ping".into(),
            "reader on >other allkeys +@read +ping +info".into(),
            "blind on >other allkeys +ping".into(),
        ],
        ..RedisOptions::default()
    };
    let Some(server) = RedisServer::start_with(options) else { return };
    server.cli(&["SET", "a", "1"]);
    let home = Home::new();
    let url = |login: &str| format!("redis://{login}127.0.0.1:{}", server.port());
    let (_, facts) = home.try_back_up(&url(":secret@"), None).unwrap();
    assert!(facts.server.settings.is_some());
    assert_eq!(home.try_back_up(&url("backup:other@"), None).unwrap().1.keys(), 1);
    // Who may not see the settings captures nevertheless.
    assert_eq!(home.try_back_up(&url("bare:other@"), None).unwrap().1.server.settings, None);
    let socket = format!("unix://{}?user=backup&password=other", server.socket().display());
    assert_eq!(home.try_back_up(&socket, None).unwrap().1.keys(), 1);
    assert_eq!(home.snapshots(), 4);
    for (login, expected) in [
        ("", "R0432 Unauthorized"),
        (":wrong@", "R0432 Unauthorized"),
        ("backup:wrong@", "R0432 Unauthorized"),
        ("nobody:other@", "R0432 Unauthorized"),
    ] {
        assert_eq!(refused(&url(login)), expected, "{login}");
    }
    for (login, expected) in [("reader:other@", "R0438 Unauthorized"), ("blind:other@", "R0433 Unauthorized")]
    {
        let error = home.try_back_up(&url(login), None).unwrap_err();
        assert_eq!(code(&error), expected, "{error}");
    }
    assert_eq!(home.snapshots(), 4);
}

#[test]
fn a_password_that_nobody_asked_for_is_a_wrong_login() {
    let Some(mut server) = RedisServer::start() else { return };
    assert_eq!(refused(&format!("redis://nobody:wrong@127.0.0.1:{}", server.port())), "R0432 Unauthorized");
    let url = server.url();
    server.stop();
    assert_eq!(refused(&url), "R0431 Unavailable");
    assert_eq!(refused(&format!("unix://{}", server.socket().display())), "R0431 Unavailable");
}

/// Runs `openssl`; keys and certificates lie in `folder`.
fn openssl(program: &Path, folder: &Path, arguments: &str) {
    let output = Command::new(program).current_dir(folder).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn certificates_are_checked_on_both_sides() {
    let Some(program) = require_tool("openssl") else { return };
    let folder = Folder::new();
    let run = |arguments: &str| openssl(&program, folder.path(), arguments);
    for name in ["ca", "other"] {
        run(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN={name} -keyout {name}.key -out {name}.crt"
        ));
    }
    std::fs::write(folder.join("ext"), "subjectAltName=DNS:localhost\n").unwrap();
    for name in ["server", "client"] {
        run(&format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        run(&format!(
            "x509 -req -days 30 -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile ext -out {name}.crt"
        ));
    }
    for asks_clients in [false, true] {
        let tls = RedisTls {
            certificate: folder.join("server.crt"),
            key: folder.join("server.key"),
            authority: folder.join("ca.crt"),
            asks_clients,
        };
        let options =
            RedisOptions { tls: Some(tls), password: Some("secret".into()), ..RedisOptions::default() };
        let Some(server) = RedisServer::start_with(options) else { return };
        server.cli(&["DEBUG", "POPULATE", "5000", "key", "1000"]);
        let url = |host: &str, parameters: &str| {
            let parameters = parameters.replace('=', &format!("={}/", folder.path().display()));
            format!("rediss://:secret@{host}:{}?{parameters}", server.tls_port())
        };
        let home = Home::new();
        let client = "cacert=ca.crt&cert=client.crt&key=client.key";
        assert_eq!(home.try_back_up(&url("localhost", client), None).unwrap().1.keys(), 5000);
        let without = Connection::connect(&address(&url("localhost", "cacert=ca.crt")));
        assert_eq!(without.is_ok(), !asks_clients, "{without:?}");
        assert!(without.is_err() || without.unwrap().is_private());
        for (host, parameters, expected) in [
            ("127.0.0.1", client, "R0434 Unauthorized"),
            ("localhost", "cacert=other.crt", "R0434 Unauthorized"),
            ("localhost", "", "R0434 Unauthorized"),
            ("localhost", "cacert=missing.crt", "R0434 Invalid"),
            ("localhost", "cacert=ca.crt&cert=client.crt&key=ca.key", "R0434 Invalid"),
        ] {
            let address: Address = address(&url(host, parameters));
            let error = Connection::connect(&address).unwrap_err();
            assert!(
                code(&error) == expected || parameters.is_empty() && error.code().as_str() == "R0434",
                "{parameters}: {error}"
            );
        }
        // TLS where none is spoken, and the other way round.
        let plain =
            format!("rediss://localhost:{}?cacert={}", server.port(), folder.join("ca.crt").display());
        let refused = Connection::connect(&address(&plain)).unwrap_err();
        assert_eq!(refused.code().as_str(), "R0434", "{refused}");
        let naked =
            Connection::connect(&address(&format!("redis://localhost:{}", server.tls_port()))).unwrap_err();
        assert!(["R0431 Unavailable", "R0435 Unsupported"].contains(&code(&naked).as_str()), "{naked}");
    }
}
