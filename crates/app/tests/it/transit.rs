//! A repository whose password `OpenBao`'s transit engine wraps, whole commands.

use crate::kit::{Home, MODELS, Run};
use retoma_testkit::BaoServer;

fn run(home: &Home, token: &str, arguments: &[&str]) -> Run {
    let output = home.command().args(arguments).env("VAULT_TOKEN", token).output().unwrap();
    Run::new(format!("retoma {}", arguments.join(" ")), &output)
}

/// The manifest's repository opens with the engine from now on; no password is left.
fn without_password(home: &Home, url: &str) {
    home.write_manifest(MODELS);
    let text = std::fs::read_to_string(home.path("retoma.toml")).unwrap();
    home.write("retoma.toml", text.replace("file:password", &format!("transit:{url}")).as_bytes());
    std::fs::remove_file(home.path("password")).unwrap();
}

#[test]
fn a_transit_engine_opens_and_who_may_not_decrypt_does_not() {
    let Some(server) = BaoServer::start() else { return };
    let home = Home::backed_up();
    let url = server.make_key("retoma");
    let refused = run(&home, "no-token", &["key", "add", "--transit", &url]).expect(1);
    assert!(
        refused.stderr.contains("error[R0234]") && !refused.stderr.contains("no-token"),
        "{}",
        refused.text()
    );
    assert_eq!(home.json(&["key", "list"], 0, "retoma.key/1")["keys"].as_array().unwrap().len(), 1);
    run(&home, BaoServer::TOKEN, &["key", "add", "--transit", &url]).expect(0);
    let listed = home.json(&["key", "list"], 0, "retoma.key/1");
    assert_eq!(
        (&listed["keys"][1]["kind"], &listed["keys"][1]["transit"]["name"]),
        (&"transit".into(), &"retoma".into())
    );

    without_password(&home, &url);
    server.rotate_key("retoma");
    run(&home, BaoServer::TOKEN, &["backup"]).expect(0);
    run(&home, BaoServer::TOKEN, &["restore", "models", "--target", "back"]).expect(0);
    let checked = run(&home, BaoServer::TOKEN, &["key", "check"]).expect(4);
    assert!(!checked.text().contains("every key is on this host"), "{}", checked.text());

    let refused = run(&home, "no-token", &["snapshots"]).expect(1);
    assert!(
        refused.stderr.contains("error[R0234]") && !refused.stderr.contains("no-token"),
        "{}",
        refused.text()
    );
    let refused = home.run(&["snapshots"]).expect(1);
    assert!(refused.stderr.contains("error[R0102]"), "{}", refused.text());

    // On a blank machine.
    let address = format!("file://{}", home.text_path("repository"));
    let blank = Home::empty();
    run(
        &blank,
        BaoServer::TOKEN,
        &["recover", "--repository-url", &address, "--transit", &url, "--to", "back"],
    )
    .expect(0);
    let back = blank.path("back").join(home.path("models/winner.f32").strip_prefix("/").unwrap());
    assert_eq!(std::fs::read(back).unwrap(), std::fs::read(home.path("models/winner.f32")).unwrap());

    // Another key of the engine, one that was destroyed, a server that is gone.
    let other = server.make_key("other");
    let text = std::fs::read_to_string(home.path("retoma.toml")).unwrap();
    home.write("retoma.toml", text.replace(&url, &other).as_bytes());
    let refused = run(&home, BaoServer::TOKEN, &["snapshots"]).expect(12);
    assert!(refused.stderr.contains("error[R0202]"), "{}", refused.text());
    home.write("retoma.toml", text.as_bytes());
    server.destroy_key("retoma");
    let refused = run(&home, BaoServer::TOKEN, &["snapshots"]).expect(1);
    assert!(refused.stderr.contains("error[R0234]"), "{}", refused.text());
    drop(server);
    let refused = run(&home, BaoServer::TOKEN, &["snapshots"]).expect(1);
    assert!(refused.stderr.contains("cannot be asked"), "{}", refused.text());
}

#[test]
fn a_token_never_goes_to_an_address_without_encryption_or_into_a_manifest() {
    let home = Home::backed_up();
    let refused =
        run(&home, "a-token", &["key", "add", "--transit", "http://bao.example/v1/transit/keys/k"]).expect(1);
    home.assert_snapshot("transit_plain", &refused);
    let text = std::fs::read_to_string(home.path("retoma.toml")).unwrap();
    home.write(
        "retoma.toml",
        text.replace("file:password", "transit:https://u:hunter2@b/v1/transit/keys/k").as_bytes(),
    );
    let refused = home.run(&["snapshots"]).expect(1);
    assert!(refused.stderr.contains("R0115") && !refused.stderr.contains("hunter2"), "{}", refused.text());
}
