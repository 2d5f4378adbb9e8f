//! An old primary that wrote on its own is brought back by `pg_rewind`, follows, and becomes the primary again.

use super::{Load, SUMS, archived, archiving, assert_no_gap, assert_recovers_to, site};
use crate::wal_stream::{Site, wait_shipped};
use retoma_testkit::{PostgresServer, StopMode, wait_for_what};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);

/// One address for whoever is the primary, as a service address or a name has it.
#[derive(Clone)]
pub(super) struct Door {
    own: u16,
    leads_to: Arc<Mutex<u16>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Door {
    pub(super) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let door = Self { own, leads_to: Arc::new(Mutex::new(port)), open: Arc::default() };
        let accepting = door.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let port = *accepting.leads_to.lock().unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let copy = |stream: &TcpStream| stream.try_clone().unwrap();
                accepting.open.lock().unwrap().extend([copy(&client), copy(&server)]);
                hand_on(copy(&client), copy(&server));
                hand_on(server, client);
            }
        });
        door
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.own)
    }

    /// From now on to another server; what is open ends.
    pub(super) fn lead_to(&self, port: u16) {
        *self.leads_to.lock().unwrap() = port;
        for stream in self.open.lock().unwrap().drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    });
}

/// Waits until a standby has replayed what its primary has now.
fn caught_up(primary: &PostgresServer, standby: &PostgresServer) -> String {
    let written = primary.psql("SELECT pg_current_wal_lsn()");
    wait_for_what("the standby to have everything", || {
        (standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t").then_some(())
    });
    written
}

/// The standby stays behind, the primary goes on and dies, the standby takes over.
fn split(site: &mut Site, standby: &mut PostgresServer, in_between: impl FnOnce(&Site)) {
    caught_up(&site.server, standby);
    standby.stop(StopMode::Fast);
    site.server.psql("CREATE TABLE lost AS SELECT md5(n::text) AS n FROM generate_series(1, 60000) AS n");
    in_between(site);
    site.server.kill();
    standby.go();
    standby.promote();
}

/// Makes the old primary a standby of the new one.
fn rewind(site: &mut Site, primary: &PostgresServer) {
    // Before its first checkpoint, its control file names the old timeline, and `pg_rewind` (to 15) finds nothing to do.
    primary.psql("CHECKPOINT");
    let data = site.server.data_dir().display().to_string();
    let source = primary.socket_url();
    site.server.run("pg_rewind", &["-R", "--target-pgdata", &data, "--source-server", &source]);
    site.server.go();
    caught_up(primary, &site.server);
}

#[test]
fn an_archive_follows_a_promotion_and_a_rewound_primary() {
    let Some(mut site) = archiving(&["archive_mode = always"]) else { return };
    archived(&site.server, PATIENCE);
    site.back_up();
    let mut standby = site.server.standby(None);
    Load::start(&site).goes_on_for("timeline 1", 2);
    split(&mut site, &mut standby, |site| {
        archived(&site.server, PATIENCE);
    });
    Load::on(&standby, &site).goes_on_for("timeline 2", 2);
    archived(&standby, PATIENCE);
    assert_no_gap(&site);
    assert_recovers_to(&site, &standby);

    rewind(&mut site, &standby);
    Load::on(&standby, &site).goes_on_for("timeline 2, with the old primary as standby", 2);
    caught_up(&standby, &site.server);
    let sums = standby.psql(SUMS);
    standby.stop(StopMode::Fast);
    site.server.promote();
    assert_eq!(site.server.psql(SUMS), sums);
    Load::start(&site).goes_on_for("timeline 3", 2);
    archived(&site.server, PATIENCE);
    assert!(site.server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").starts_with("00000003"));
    assert_no_gap(&site);
    assert_recovers_to(&site, &site.server);
}

#[test]
fn a_stream_follows_a_promotion_and_a_rewound_primary() {
    let Some(mut site) = site("mode = \"stream\"", &[]) else { return };
    let door = Door::to(site.server.port());
    site.write_manifest(&door.url(), "mode = \"stream\"");
    let stream = site.streaming();
    site.back_up();
    let mut standby = site.server.standby(None);
    Load::start(&site).goes_on_for("timeline 1", 2);
    split(&mut site, &mut standby, |site| {
        site.shipped();
    });
    door.lead_to(standby.port());
    Load::on(&standby, &site).goes_on_for("timeline 2", 2);
    wait_shipped(&standby, &standby.psql("SELECT pg_current_wal_lsn()"), PATIENCE);
    assert_no_gap(&site);
    assert_recovers_to(&site, &standby);

    // The same stream goes on from the old primary, which is a standby now, and stays with it when it is promoted.
    rewind(&mut site, &standby);
    door.lead_to(site.server.port());
    Load::on(&standby, &site).goes_on_for("timeline 2, streamed from the standby", 2);
    wait_shipped(&site.server, &caught_up(&standby, &site.server), PATIENCE);
    let sums = standby.psql(SUMS);
    standby.stop(StopMode::Fast);
    site.server.promote();
    assert_eq!(site.server.psql(SUMS), sums);
    Load::start(&site).goes_on_for("timeline 3", 2);
    site.shipped_within(PATIENCE);
    stream.wait_for("timeline 3", |event| event["event"] == "timeline" && event["position"]["timeline"] == 3);
    assert_eq!(stream.stop(), Some(0));
    let gaps = stream_gaps(&site);
    assert_eq!(gaps, 0, "a gap was told");
    assert_no_gap(&site);
    assert_recovers_to(&site, &site.server);
}

fn stream_gaps(site: &Site) -> usize {
    let told = std::fs::read_to_string(site.home().join("stream.out")).unwrap();
    told.lines().filter(|line| line.contains("\"event\":\"gap\"")).count()
}
