//! An alert from its cause to its receiver, and its end.

use super::{Agent, ended, home, wait_for_good};
use crate::kit::{Home, MODELS};
use retoma_testkit::{MailOptions, MailServer, wait_for_what};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// A webhook's receiver on the loopback address.
fn receiver() -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let got: Arc<Mutex<Vec<Value>>> = Arc::default();
    let own = Arc::clone(&got);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            own.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        }
    });
    (url, got)
}

#[test]
fn an_alert_and_its_end_come_by_mail() {
    let options = MailOptions { security: "starttls", password: "hunter2" };
    let Some(server) = MailServer::start(options) else { return };
    let home = home(&format!(
        "[alerts.email]\nserver = \"{}\"\nca_file = \"{}\"\nfrom = \"retoma@shop.example\"\nto = [\"ops@shop.example\"]\n\
         user = \"retoma\"\npassword = \"file:mail-password\"\n",
        server.address(),
        server.authority().display()
    ));
    home.write_private("mail-password", "hunter2\n");
    let agent = Agent::start(&home);
    wait_for_what("the repository to be known", || {
        home.path(".retoma/agent/repositories.json").exists().then_some(())
    });
    // What stands below a title, up to the next one.
    let hear = |from: &str, to: &str| {
        let part = |mail: &String| Some(mail.split_once(from)?.1.split_once(to)?.0.to_owned());
        let has_it = |part: String| part.contains("repository_unavailable (critical), repository local");
        wait_for_what(from, || server.mails().iter().filter_map(part).any(has_it).then_some(()));
    };
    std::fs::rename(home.path("repository"), home.path("away")).unwrap();
    hear("Raised:", "Cleared:");
    std::fs::remove_dir_all(home.path("repository")).ok();
    std::fs::rename(home.path("away"), home.path("repository")).unwrap();
    hear("Cleared:", "Active now:");
    assert_eq!(agent.stop().code(), Some(0));
}

#[test]
fn a_repository_that_goes_away_is_an_alert_and_is_not_made_anew() {
    let (url, got) = receiver();
    let home = home(&format!("[alerts]\nwebhook = \"{url}\"\n"));
    let agent = Agent::start(&home);
    wait_for_good(&home, "backup/models", 1);
    let heard = |list: &str, alert: &str| {
        wait_for_what(alert, || {
            let got = got.lock().unwrap();
            let all = got.iter().filter_map(|message| message[list].as_array()).flatten();
            all.into_iter().find(|it| it["alert"] == alert).cloned()
        })
    };
    // A run that is writing just now could make folders where the repository was: its own error, no repository.
    wait_for_what("the repository to be known", || {
        home.path(".retoma/agent/repositories.json").exists().then_some(())
    });
    std::fs::rename(home.path("repository"), home.path("away")).unwrap();
    let raised = heard("raised", "repository_unavailable");
    assert_eq!(
        (&raised["severity"], &raised["repository"]),
        (&"critical".into(), &"local".into()),
        "{raised}"
    );
    heard("raised", "task_failing");
    assert!(agent.get("/metrics").1.contains("retoma_repository_up{repository=\"local\"} 0\n"));
    assert!(agent.get("/healthz").0.starts_with("HTTP/1.1 200"), "the agent itself is well");
    assert!(!home.path("repository/config").exists(), "no new repository where the disk was");
    std::fs::remove_dir_all(home.path("repository")).ok();
    std::fs::rename(home.path("away"), home.path("repository")).unwrap();
    heard("cleared", "repository_unavailable");
    heard("cleared", "task_failing");
    assert_eq!(agent.stop().code(), Some(0));
}

#[test]
fn a_mass_change_is_an_alert_until_it_is_accepted() {
    let often = "[schedule]\nevery = \"2s\"\n[agent]\nlisten = \"127.0.0.1:0\"\nretention_every = \"3s\"\n";
    let home = Home::with(&format!(
        "{MODELS}[component.mass_change]\nmin_files = 3\n{often}[retention]\nkeep_last = 1\n"
    ));
    for file in 0..6 {
        home.write(&format!("models/{file}"), &[file; 100]);
    }
    home.back_up();
    for file in 0..6 {
        home.write(&format!("models/{file}"), &retoma_testkit::bytes(file, 100));
    }
    let tagged = home.back_up()["backups"][0]["snapshot"].as_str().unwrap().to_owned();
    let agent = Agent::start(&home);
    let alert = || {
        let health: Value = serde_json::from_str(&agent.get("/healthz").1).unwrap();
        let alerts = health["alerts"].as_array().unwrap().clone();
        alerts.into_iter().find(|it| it["alert"] == "mass_change")
    };
    let active = wait_for_what("the alert", alert);
    let about = (&active["severity"], &active["component"], &active["repository"]);
    assert_eq!(about, (&"critical".into(), &"models".into(), &"local".into()), "{active}");
    assert!(active["summary"].as_str().unwrap().contains(&format!("--accept {}", &tagged[..8])), "{active}");
    // Its own retention removes what is newer, and neither that snapshot nor the one before it.
    wait_for_good(&home, "backup/models", 3);
    wait_for_good(&home, "retention", 3);
    let (there, made) = (home.snapshots(), 2 + ended(&home, "backup/models", "good"));
    assert!(there.len() < made && there[1]["id"] == tagged.as_str(), "{made} were made: {there:#?}");
    home.run(&["forget", "--accept", &tagged[..8]]).expect(0);
    wait_for_what("its end", || alert().is_none().then_some(()));
    wait_for_what("retention", || (home.snapshots().len() < 3).then_some(()));
    assert_eq!(agent.stop().code(), Some(0));
}
